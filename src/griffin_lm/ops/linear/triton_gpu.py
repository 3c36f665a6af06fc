"""The block-diagonal linear map by Triton: launches and gradients."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .. import gpu

SMALLEST = 16  # rows, inputs and outputs of a block that the matrix units take


def _launch(x: Tensor, w: Tensor, b: Tensor | None, turned: bool = False) -> Tensor:
    """x (M, H I), w (H, I, O), b (H, O) -> (M, H O); turned: by w as (H, O, I), to (M, H I)."""
    from . import kernels

    heads, inputs, outputs = w.shape
    strides = (w.stride(1), w.stride(2))
    if turned:
        inputs, outputs, strides = outputs, inputs, strides[::-1]
    rows = x.shape[0]
    y = torch.empty(rows, heads * outputs, dtype=x.dtype, device=x.device)
    if y.numel() == 0:
        return y
    block_m = max(SMALLEST, min(128, gpu.power_of_two(rows)))
    block_o = max(SMALLEST, min(64 if rows <= 64 else 128, gpu.power_of_two(outputs)))
    grid = (-(-rows // block_m), heads * -(-outputs // block_o))
    gpu.launch(
        kernels.block_linear,
        grid,
        *(x, w, y if b is None else b, y, rows, heads, inputs, outputs, *strides),
        BIASED=b is not None,
        WIDE=x.dtype == torch.float32 or gpu.INTERPRETED,
        BLOCK_M=block_m,
        BLOCK_I=max(SMALLEST, min(64, gpu.power_of_two(inputs))),
        BLOCK_O=block_o,
        warps=8 if block_m * block_o >= 128 * 128 else 4,
    )
    return y


def weight_gradients(x: Tensor, g: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """At w (H, I, O) and its bias, of inputs x (..., H I), given g at the outputs (..., H O).

    One batched product, long and thin, that cuBLAS does well.
    """
    xs, gs = (t.reshape(-1, w.shape[0], t.shape[-1] // w.shape[0]).transpose(0, 1) for t in (x, g))
    return torch.bmm(xs.transpose(1, 2), gs), g.float().flatten(0, -2).sum(0).view(
        w.shape[0], -1
    ).to(w.dtype)


class _BlockLinear(torch.autograd.Function):
    """Keeps x and w."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        """x (M, H I), w (H, I, O), b (H, O), contiguous."""
        ctx.save_for_backward(x, w)
        return _launch(x, w, b)

    @staticmethod
    @once_differentiable  # PyTorch gives it no types, hence the silence below
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grads: Tensor
    ) -> tuple[Tensor | None, ...]:
        """At x, w and the bias."""
        x, w = ctx.saved_tensors
        g = grads[0].contiguous()
        return _launch(g, w, None, turned=True), *weight_gradients(x, g, w)


def block_linear(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    """As ops.linear.blocks.block_linear: of 16 or 32 bits."""
    rows = x.reshape(-1, x.shape[-1]).contiguous()
    y = _BlockLinear.apply(rows, w.contiguous(), b.contiguous())
    return y.view(*x.shape[:-1], w.shape[0] * w.shape[2])


def why_not(x: Tensor, w: Tensor, b: Tensor) -> str | None:
    """One dtype of 16 or 32 bits; on a GPU."""
    if torch.compiler.is_compiling():
        return "torch.compile makes its own"
    if not x.dtype == w.dtype == b.dtype or x.dtype not in gpu.DTYPES:
        return f"it takes one dtype of 16 or 32 bits, not {x.dtype}, {w.dtype}, {b.dtype}"
    return gpu.why_not(x, w, b)
