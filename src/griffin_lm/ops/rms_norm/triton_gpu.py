"""RMSNorm by Triton, with a sum in front of it where there is one: launches and gradients."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .. import gpu

_PARTS = 512  # partial sums over rows: their number depends on the rows alone
_WIDEST = 16384  # of a row that a program holds in registers


def _launch(
    x: Tensor, added: Tensor | None, scale: Tensor, eps: float, offset: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The sum (x where nothing is added), the norm of it, and a root a row."""
    from . import kernels

    out, total = torch.empty_like(x), x if added is None else torch.empty_like(x)
    rows, width = x.shape
    root = torch.empty(rows, dtype=torch.float32, device=x.device)
    if x.numel():
        gpu.launch(
            kernels.norm,
            (rows,),
            *(x, x if added is None else added, scale, total, out, root, width, eps),
            ADDS=added is not None,
            OFFSET=offset,
            BLOCK=gpu.power_of_two(width),
            warps=_warps(width),
        )
    return total, out, root


def _launch_gradient(
    x: Tensor, scale: Tensor, root: Tensor, g: Tensor, beside: Tensor | None, offset: bool
) -> tuple[Tensor, Tensor]:
    from . import kernels

    dx, (rows, width) = torch.empty_like(x), x.shape
    if x.numel() == 0:
        return dx, torch.zeros_like(scale)
    parts = min(rows, _PARTS)
    d_scale = torch.empty(parts, width, dtype=torch.float32, device=x.device)
    gpu.launch(
        kernels.norm_gradient,
        (parts,),
        *(x, scale, root, g, g if beside is None else beside, dx, d_scale, rows, width),
        ADDS=beside is not None,
        OFFSET=offset,
        BLOCK=gpu.power_of_two(width),
        warps=_warps(width),
    )
    return dx, d_scale.sum(0).to(scale.dtype)


def _warps(width: int) -> int:
    """So that a thread has 16 numbers of a row or fewer, as far as 16 warps reach."""
    return min(16, max(1, gpu.power_of_two(width) // 512))


class _Norm(torch.autograd.Function):
    """Keeps x and a number a row."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, eps: float, offset: bool) -> Tensor:
        """x (N, W), scale (W), contiguous."""
        _, out, root = _launch(x, None, scale, eps, offset)
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
        dx, d_scale = _launch_gradient(x, scale, root, grads[0].contiguous(), None, ctx.offset)
        return dx, d_scale, None, None


class _AddNorm(torch.autograd.Function):
    """Keeps the sum and a number a row."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, added: Tensor, scale: Tensor, eps: float, offset: bool
    ) -> tuple[Tensor, Tensor]:
        """x, added (N, W), scale (W), contiguous."""
        total, out, root = _launch(x, added, scale, eps, offset)
        ctx.save_for_backward(total, scale, root)
        ctx.offset = offset
        return total, out

    @staticmethod
    @once_differentiable  # PyTorch gives it no types, hence the silence below
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grads: Tensor
    ) -> tuple[Tensor | None, ...]:
        """At both summands, where it is the same, and at scale."""
        total, scale, root = ctx.saved_tensors
        beside, g = (grad.contiguous() for grad in grads)
        dx, d_scale = _launch_gradient(total, scale, root, g, beside, ctx.offset)
        return dx, dx, d_scale, None, None


def rms_norm(x: Tensor, scale: Tensor, eps: float, offset: bool) -> Tensor:
    """As ops.rms_norm.rms_norm: x (..., W) of 16 or 32 bits."""
    rows = x.reshape(-1, x.shape[-1]).contiguous()
    return _Norm.apply(rows, scale.contiguous(), eps, offset).view(x.shape)


def add_rms_norm(
    x: Tensor, added: Tensor, scale: Tensor, eps: float, offset: bool
) -> tuple[Tensor, Tensor]:
    """As ops.rms_norm.add_rms_norm: x and added (..., W) of one dtype of 16 or 32 bits."""
    rows, more = (t.reshape(-1, t.shape[-1]).contiguous() for t in (x, added))
    total, out = _AddNorm.apply(rows, more, scale.contiguous(), eps, offset)
    return total.view(x.shape), out.view(x.shape)


def why_not(x: Tensor, scale: Tensor) -> str | None:
    """16 or 32 bits, rows that fit into registers; on a GPU."""
    if torch.compiler.is_compiling():
        return "torch.compile makes its own"
    for tensor in (x, scale):
        if tensor.dtype not in gpu.DTYPES:
            return f"it takes 16 or 32 bits, not {tensor.dtype}"
    if x.shape[-1] > _WIDEST:
        return f"a row of {x.shape[-1]} numbers is wider than {_WIDEST}"
    return gpu.why_not(x, scale)


def why_not_add(x: Tensor, added: Tensor, scale: Tensor) -> str | None:
    """As why_not; both summands of one dtype and shape."""
    if x.dtype != added.dtype or x.shape != added.shape:
        return f"it adds like to like, not {added.dtype} to {x.dtype}"
    return why_not(x, scale) or gpu.why_not(added)
