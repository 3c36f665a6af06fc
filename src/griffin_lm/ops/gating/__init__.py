"""act(gate) * x: what a gated MLP and a recurrent block multiply their branches by.

PyTorch computes the last elements of a tensor by other instructions than the rest, so that a token
alone and the same token in a batch may differ in the last bit; the compiled kernel doesn't.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import gelu, silu

from .. import native
from ..backend import Backend, always, choose
from . import triton_gpu

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": partial(gelu, approximate="tanh"),  # as all of these models were trained
    "silu": silu,
}


def gated(
    gate: Float[Tensor, "*B W"], x: Float[Tensor, "*B W"], activation: str
) -> Float[Tensor, "*B W"]:
    """act(gate) * x in the gate's dtype; activation: "gelu" (by tanh) or "silu".

    x may be fp32 beside a narrower gate. The kernel rounds once; the reference rounds x and
    act(gate) to the gate's dtype before the product.
    """
    return choose("a gated product", BACKENDS, gate, x, activation)(gate, x, activation)


def _reference(gate: Tensor, x: Tensor, activation: str) -> Tensor:
    return ACTIVATIONS[activation](gate) * x.to(gate.dtype)


class _Native(torch.autograd.Function):
    """The compiled product, which keeps its two factors for its gradient."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, x: Tensor, gelu: bool) -> Tensor:
        """Contiguous, of one shape."""
        ctx.save_for_backward(gate, x)
        ctx.gelu = gelu
        return native.gate(gate, x, gelu)

    @staticmethod
    @once_differentiable  # PyTorch gives it no types, hence the silence below
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grads: Tensor
    ) -> tuple[Tensor | None, ...]:
        """At the gate and at x; act(gate) is computed again."""
        gate, x = ctx.saved_tensors
        return *native.gate_backward(gate, x, grads[0].contiguous(), ctx.gelu), None


def _native(gate: Tensor, x: Tensor, activation: str) -> Tensor:
    gate, x = gate.contiguous(), x.contiguous()
    if torch.is_grad_enabled() and (gate.requires_grad or x.requires_grad):
        return _Native.apply(gate, x, activation == "gelu")
    return native.gate(gate, x, activation == "gelu")


def _why_not_native(gate: Tensor, x: Tensor, activation: str) -> str | None:
    if torch.compiler.is_compiling():
        return "torch.compile makes its own"
    if gate.dtype not in (torch.bfloat16, torch.float32):
        return f"it takes bfloat16 or float32, not {gate.dtype}"
    if x.dtype not in (gate.dtype, torch.float32):
        return f"it multiplies a gate of {gate.dtype} by its like or by float32, not by {x.dtype}"
    if gate.shape != x.shape:
        return f"the shapes {tuple(gate.shape)} and {tuple(x.shape)} differ"
    return native.why_not(gate, x)


BACKENDS = (
    Backend("triton", triton_gpu.gated, triton_gpu.why_not),
    Backend("native", _native, _why_not_native),
    Backend("reference", _reference, always),
)
