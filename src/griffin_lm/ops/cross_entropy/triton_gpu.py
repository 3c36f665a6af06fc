"""Cross entropy of a chunk of logits by Triton."""

import torch
from torch import Tensor

from .. import gpu

_BLOCK = 4096


def cross_entropy(
    logits: Tensor, targets: Tensor, weight: Tensor, cap: float
) -> tuple[Tensor, Tensor, Tensor]:
    """As ops.cross_entropy.cross_entropy; the gradient takes the logits' place."""
    from . import kernels

    rows, words = logits.shape
    each = torch.empty(rows, dtype=torch.float32, device=logits.device)
    right = torch.empty(rows, dtype=torch.bool, device=logits.device)
    if logits.numel():
        gpu.launch(
            kernels.loss,
            (rows,),
            *(logits, targets.contiguous(), weight.float().contiguous(), each, right),
            *(words, float(cap)),
            CAPPED=bool(cap),
            BLOCK=min(_BLOCK, gpu.power_of_two(words)),
            warps=8,
        )
    return each, right, logits


def why_not(logits: Tensor, targets: Tensor, weight: Tensor) -> str | None:
    """Contiguous logits of 16 or 32 bits; on a GPU."""
    if torch.compiler.is_compiling():
        return "torch.compile makes its own"
    if logits.dtype not in gpu.DTYPES:
        return f"it takes logits of 16 or 32 bits, not {logits.dtype}"
    if not logits.is_contiguous():
        return "it takes contiguous logits"
    return gpu.why_not(logits, targets, weight)
