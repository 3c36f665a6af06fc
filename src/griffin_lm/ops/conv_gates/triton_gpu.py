"""Conv and gates by Triton: launches and gradients."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .. import gpu
from ..causal_conv.triton_gpu import gradients as conv_gradients
from ..linear.triton_gpu import SMALLEST, weight_gradients


def _blocks(rows: int, inner: int, outer: int) -> dict[str, Any]:
    """Sizes of a program: rows, inputs or outputs that it walks, those that it owns."""
    few = rows <= 64  # a decode step: many programs of few outputs, to read the weights sooner

    def size(most: int, number: int) -> int:
        return max(SMALLEST, min(most, gpu.power_of_two(number)))

    return {
        "BLOCK_M": size(64, rows),
        "walked": size(32, inner),
        "owned": size(32 if few else 64, outer),
        "warps": 4 if few else 8,
    }


def _launch(*tensors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """u, past, w, b, position, a, a_bias, x, x_bias, contiguous -> conv, r, i."""
    from . import kernels

    u, _, w, _, _, a, *_ = tensors
    (batch, steps, _), (heads, inputs, outputs) = u.shape, a.shape
    out = torch.empty_like(u)
    r, i = (u.new_empty(batch, steps, heads * outputs) for _ in range(2))
    if u.numel() == 0:
        return out, r, i
    rows, wide = batch * steps, u.dtype == torch.float32
    options = _blocks(rows, inputs, outputs)
    options |= {"BLOCK_I": options.pop("walked"), "BLOCK_O": options.pop("owned")}
    grid = (-(-rows // options["BLOCK_M"]), heads * -(-outputs // options["BLOCK_O"]))
    given = (*tensors, out, r, i, rows, steps, heads, inputs, outputs)
    taps = w.shape[0]
    gpu.launch(kernels.conv_gates, grid, *given, TAPS=taps, WIDE=wide or gpu.INTERPRETED, **options)
    return out, r, i


def _gradient_at_conv(a: Tensor, x: Tensor, g: Tensor, g_r: Tensor, g_i: Tensor) -> Tensor:
    """All that reaches the conv's output, in g's dtype."""
    from . import kernels

    total, (heads, inputs, outputs) = torch.empty_like(g), a.shape
    if g.numel() == 0:
        return total
    rows, wide = g.shape[0] * g.shape[1], g.dtype == torch.float32
    options = _blocks(rows, outputs, inputs)
    options |= {"BLOCK_O": options.pop("walked"), "BLOCK_I": options.pop("owned")}
    grid = (-(-rows // options["BLOCK_M"]), heads * -(-inputs // options["BLOCK_I"]))
    given = (a, x, g, g_r, g_i, total, rows, heads, inputs, outputs)
    gpu.launch(kernels.gradient_at_conv, grid, *given, WIDE=wide or gpu.INTERPRETED, **options)
    return total


class _ConvGates(torch.autograd.Function):
    """Keeps the inputs and the conv, which the recurrence keeps as well."""

    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As _launch."""
        out, r, i = _launch(*tensors)
        ctx.save_for_backward(*tensors, out)
        return out, r, i

    @staticmethod
    @once_differentiable  # PyTorch gives it no types, hence the silence below
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grads: Tensor
    ) -> tuple[Tensor | None, ...]:
        """At all but the position."""
        u, past, w, b, position, a, _, x, _, out = ctx.saved_tensors
        g, g_r, g_i = (tensor.contiguous() for tensor in grads)
        at_conv = _gradient_at_conv(a, x, g, g_r, g_i)
        d_a, d_a_bias = weight_gradients(out, g_r, a)
        d_x, d_x_bias = weight_gradients(out, g_i, x)
        around = conv_gradients(u, past, w, b, position, at_conv)
        return *around, None, d_a, d_a_bias, d_x, d_x_bias


def conv_gates(*tensors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As ops.conv_gates.conv_gates: of 16 or 32 bits."""
    return _ConvGates.apply(*(tensor.contiguous() for tensor in tensors))


def why_not(*tensors: Tensor) -> str | None:
    """One dtype of 16 or 32 bits but for the position; on a GPU."""
    if torch.compiler.is_compiling():
        return "torch.compile makes its own"
    kinds = {tensor.dtype for n, tensor in enumerate(tensors) if n != 4}
    if len(kinds) > 1 or not kinds <= set(gpu.DTYPES):
        return f"it takes one dtype of 16 or 32 bits, not {', '.join(sorted(map(str, kinds)))}"
    return gpu.why_not(*tensors)
