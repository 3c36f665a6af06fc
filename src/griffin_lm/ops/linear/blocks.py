"""y[h] = x[h] w[h] + b[h] for each head's block: the gates of the RG-LRU."""

import torch
from jaxtyping import Float
from torch import Tensor

from .. import native
from ..backend import Backend, always, choose, preferred
from ..derived import derived
from . import triton_gpu


def block_linear(
    x: Float[Tensor, "*B R"], w: Float[Tensor, "H I O"], b: Float[Tensor, "H O"]
) -> Float[Tensor, "*B S"]:
    """(..., H I) to (..., H O); bf16 is summed in fp32 and rounded once, bias included."""
    return choose("a block-diagonal map", BACKENDS, x, w, b)(x, w, b)


def _reference(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    blocks = x.unflatten(-1, w.shape[:2])
    return (torch.einsum("...hi,hio->...ho", blocks, w) + b).flatten(-2)


def rows_of_outputs(w: Float[Tensor, "H I O"]) -> Float[Tensor, "H O I"]:
    """What the kernel wants: a row of each block's matrix for each output; made once a weight."""
    return derived(w, _turned)  # a hundredth of a model's bytes


def _turned(w: Tensor) -> Tensor:
    return w.transpose(1, 2).contiguous()


def _native(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    rows = x.reshape(-1, x.shape[-1]).contiguous()
    product = native.block_linear_bf16 if x.dtype == torch.bfloat16 else native.block_linear_fp32
    y = product(rows, rows_of_outputs(w), b.contiguous())
    return y.view(*x.shape[:-1], w.shape[0] * w.shape[2])


def _why_not_native(x: Tensor, w: Tensor, b: Tensor) -> str | None:
    if torch.compiler.is_compiling():
        return "torch.compile makes its own"
    if torch.is_grad_enabled() and (x.requires_grad or w.requires_grad):
        return "it has no gradient: use torch.no_grad()"
    if not x.dtype == w.dtype == b.dtype or x.dtype not in (torch.bfloat16, torch.float32):
        return f"it multiplies bfloat16 or float32 by its like, not {x.dtype} by {w.dtype}"
    if x.dtype == torch.float32 and preferred() == "auto" and native.isa() == "portable":
        return "PyTorch's own is faster without AVX2"
    return native.why_not(x, w, b)


BACKENDS = (
    Backend("triton", triton_gpu.block_linear, triton_gpu.why_not),
    Backend("native", _native, _why_not_native),
    Backend("reference", _reference, always),
)
