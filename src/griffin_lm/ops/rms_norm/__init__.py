"""RMSNorm over the last axis (Zhang and Sennrich 2019).

In one pass over a row where it is compiled: as PyTorch's operations it is six walks over memory,
and in a decode step six calls.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from ...precision import accumulation
from .. import native
from ..backend import Backend, always, choose
from . import triton_gpu


def rms_norm(
    x: Float[Tensor, "*B W"], scale: Float[Tensor, " W"], eps: float, offset: bool
) -> Float[Tensor, "*B W"]:
    """x / sqrt(mean(x^2) + eps) times 1 + scale (`offset`) or times scale, in x's dtype.

    Computed in fp32 (float64 for float64). Without `offset` the quotient is rounded to x's dtype
    before the product, as Llama does.
    """
    return choose("RMSNorm", BACKENDS, x, scale)(x, scale, eps, offset)


def add_rms_norm(
    x: Float[Tensor, "*B W"],
    added: Float[Tensor, "*B W"],
    scale: Float[Tensor, " W"],
    eps: float,
    offset: bool,
) -> tuple[Float[Tensor, "*B W"], Float[Tensor, "*B W"]]:
    """x + added, and the RMSNorm of that sum: what stands between two halves of a residual block.

    On a GPU one walk over memory in place of two. The sum is rounded to x's dtype before its norm.
    """
    run = choose("a sum and its RMSNorm", ADD_BACKENDS, x, added, scale)
    return run(x, added, scale, eps, offset)


def _add_reference(
    x: Tensor, added: Tensor, scale: Tensor, eps: float, offset: bool
) -> tuple[Tensor, Tensor]:
    """By the norm's own backends, whichever is in force."""
    total = x + added
    return total, rms_norm(total, scale, eps, offset)


def _reference(x: Tensor, scale: Tensor, eps: float, offset: bool) -> Tensor:
    wide = x.to(accumulation(x.dtype))
    wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    if offset:
        return (wide * (1 + scale.to(wide.dtype))).to(x.dtype)
    return wide.to(x.dtype) * scale.to(x.dtype)


class _Native(torch.autograd.Function):
    """The compiled norm, which keeps a number a row for its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, eps: float, offset: bool) -> Tensor:
        """x (N, W), scale (W), contiguous."""
        out, root = native.norm(x, scale, eps, offset, keep=True)
        ctx.save_for_backward(x, scale, root)
        ctx.offset = offset
        return out

    @staticmethod
    @once_differentiable  # PyTorch gives it no types, hence the silence below
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grads: Tensor
    ) -> tuple[Tensor | None, ...]:
        """At x and at scale."""
        x, scale, root = ctx.saved_tensors
        dx, d_scale = native.norm_backward(x, scale, root, grads[0].contiguous(), ctx.offset)
        return dx, d_scale.to(scale.dtype), None, None


def _native(x: Tensor, scale: Tensor, eps: float, offset: bool) -> Tensor:
    rows = x.reshape(-1, x.shape[-1]).contiguous()
    scale = scale.contiguous() if offset else scale.to(x.dtype).contiguous()
    if torch.is_grad_enabled() and (x.requires_grad or scale.requires_grad):
        return _Native.apply(rows, scale, eps, offset).view(x.shape)
    return native.norm(rows, scale, eps, offset, keep=False)[0].view(x.shape)


def _why_not_native(x: Tensor, scale: Tensor) -> str | None:
    if torch.compiler.is_compiling():
        return "torch.compile makes its own"
    for tensor in (x, scale):
        if tensor.dtype not in (torch.bfloat16, torch.float32):
            return f"it takes bfloat16 or float32, not {tensor.dtype}"
    return native.why_not(x, scale)


BACKENDS = (
    Backend("triton", triton_gpu.rms_norm, triton_gpu.why_not),
    Backend("native", _native, _why_not_native),
    Backend("reference", _reference, always),
)
ADD_BACKENDS = (
    Backend("triton", triton_gpu.add_rms_norm, triton_gpu.why_not_add),
    Backend("reference", _add_reference, always),
)
