"""Cross entropy of a chunk of logits under a soft cap, with its gradient: no graph is kept.

As PyTorch's operations it is a dozen walks over the largest tensor of a training step; compiled, a
row is read from memory once and its gradient written once.
"""

from functools import cache
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from ...precision import accumulation
from .. import native
from ..backend import Backend, always, choose
from . import triton_gpu

Chunk = tuple[Tensor, Tensor, Tensor]


def cross_entropy(
    logits: Float[Tensor, "N V"],
    targets: Int64[Tensor, " N"],
    weight: Float[Tensor, " N"],
    cap: float,
    compiled: bool = False,
) -> tuple[Float[Tensor, " N"], Bool[Tensor, " N"], Float[Tensor, "N V"]]:
    """Loss, whether the target is a largest logit, and the gradient of sum(weight * loss).

    logits: before the cap (0: none); their memory may be reused, for the gradient, which has their
    dtype. All is computed in fp32 (float64 for float64). compiled: where no kernel serves, by
    torch.compile.
    """
    run = choose("cross entropy", BACKENDS, logits, targets, weight)
    if run is _reference and compiled:
        run = _compiled()
    return run(logits, targets, weight, cap)


def _reference(logits: Tensor, targets: Tensor, weight: Tensor, cap: float) -> Chunk:
    x = logits.to(accumulation(logits.dtype))
    slope: Tensor | None = None
    if cap:
        bent = torch.tanh(x / cap)
        x = bent * cap
        slope = bent.mul_(bent).neg_().add_(1)
    most = x.amax(-1, keepdim=True)
    at = targets[:, None]
    wanted = x.gather(1, at)
    gradient = (x - most).exp_()
    sums = gradient.sum(-1, keepdim=True)
    loss = (sums.log() + most - wanted)[:, 0]
    scale = weight[:, None].to(x.dtype)
    gradient.mul_(scale / sums).scatter_add_(1, at, -scale)
    if slope is not None:
        gradient.mul_(slope)
    return loss, (wanted >= most)[:, 0], gradient.to(logits.dtype)


@cache
def _compiled() -> Any:
    return torch.compile(_reference)  # made when first asked for: torch.compile is slow to import


def _native(logits: Tensor, targets: Tensor, weight: Tensor, cap: float) -> Chunk:
    weight = weight.to(torch.float32).contiguous()
    return *native.loss(logits, targets.contiguous(), weight, cap, slope=True), logits


def _why_not_native(logits: Tensor, targets: Tensor, weight: Tensor) -> str | None:
    if torch.compiler.is_compiling():
        return "torch.compile makes its own"
    if logits.dtype not in (torch.bfloat16, torch.float32):
        return f"it takes logits in bfloat16 or float32, not {logits.dtype}"
    if not logits.is_contiguous():
        return "it takes contiguous logits"
    return native.why_not(logits, targets, weight)


BACKENDS = (
    Backend("triton", triton_gpu.cross_entropy, triton_gpu.why_not),
    Backend("native", _native, _why_not_native),
    Backend("reference", _reference, always),
)
