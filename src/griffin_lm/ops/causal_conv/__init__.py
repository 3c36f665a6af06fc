"""The depthwise causal convolution in front of the recurrence (Griffin, section 2.4)."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from ...shapes import Counts, Tokens
from .. import native
from ..backend import Backend, always, choose
from . import triton_gpu


def causal_conv(
    x: Float[Tensor, "B T R"],
    past: Float[Tensor, "B P R"],
    w: Float[Tensor, "C R"],
    b: Float[Tensor, " R"],
    position: Tokens,
) -> Float[Tensor, "B T R"]:
    """out_t = b + sum_s w[C-1-s] * x_{t-s}; the last row of w multiplies the current token.

    `past` holds the C - 1 inputs before x_0. The tap with shift s reaches only inside the document:
    it counts where position >= s, whatever lies in `past`. In narrow dtypes the kernel rounds once,
    the reference after each tap.
    """
    arguments = (x, past, w, b, position)
    return choose("the conv", BACKENDS, *arguments)(*arguments)


def _reference(x: Tensor, past: Tensor, w: Tensor, b: Tensor, position: Tensor) -> Tensor:
    taps, length = w.shape[0], x.shape[1]
    inputs = torch.cat([past, x], dim=1)
    out = b + w[-1] * x
    for shift in range(1, taps):
        outside = (position < shift)[..., None]
        begin = taps - 1 - shift
        out = out + w[begin] * inputs[:, begin : begin + length].masked_fill(outside, 0)
    return out


class _Native(torch.autograd.Function):
    """The compiled conv."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, past: Tensor, w: Tensor, b: Tensor, position: Tensor
    ) -> Tensor:
        """Contiguous, of one dtype."""
        ctx.save_for_backward(x, past, w, position)
        return native.conv(x, past, w, b, position)

    @staticmethod
    @once_differentiable  # PyTorch gives it no types, hence the silence below
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grads: Tensor
    ) -> tuple[Tensor | None, ...]:
        """At x, past, w and b."""
        x, past, w, position = ctx.saved_tensors
        dx, d_past, d_w, d_b = native.conv_backward(x, past, w, position, grads[0].contiguous())
        return dx, d_past, d_w.to(w.dtype), d_b.to(w.dtype), None


def _native(x: Tensor, past: Tensor, w: Tensor, b: Tensor, position: Tensor) -> Tensor:
    given = [tensor.contiguous() for tensor in (x, past, w, b, position)]
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in given):
        return _Native.apply(*given)
    return native.conv(*given)


def _why_not_native(x: Tensor, past: Tensor, w: Tensor, b: Tensor, position: Tensor) -> str | None:
    if torch.compiler.is_compiling():
        return "torch.compile makes its own"
    if x.dtype not in (torch.bfloat16, torch.float32):
        return f"it takes bfloat16 or float32, not {x.dtype}"
    if not x.dtype == past.dtype == w.dtype == b.dtype:
        return f"it takes one dtype, not {x.dtype}, {past.dtype}, {w.dtype}, {b.dtype}"
    return native.why_not(x, past, w, b, position)


BACKENDS = (
    Backend("triton", triton_gpu.causal_conv, triton_gpu.why_not),
    Backend("native", _native, _why_not_native),
    Backend("reference", _reference, always),
)


def last_inputs(
    x: Float[Tensor, "B T R"], past: Float[Tensor, "B P R"], count: Counts | None
) -> Float[Tensor, "B P R"]:
    """The C - 1 inputs before the next token, where each row has read `count` of x's T tokens.

    None: all T.
    """
    if count is None:
        length, kept = x.shape[1], past.shape[1]
        return torch.cat([past[:, min(length, kept) :], x[:, max(0, length - kept) :]], dim=1)
    inputs = torch.cat([past, x], dim=1)
    kept = count[:, None] + torch.arange(past.shape[1], device=x.device)
    return inputs.gather(1, kept[..., None].expand(-1, -1, x.shape[2]))
