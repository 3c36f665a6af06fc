"""The gated product by Triton."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .. import gpu

_BLOCK, _WARPS = 1024, 4


def _options(size: int, activation: str) -> dict[str, Any]:
    block = min(_BLOCK, gpu.power_of_two(size))
    return {"GELU": activation == "gelu", "BLOCK": block, "warps": _WARPS}


class _Product(torch.autograd.Function):
    """Keeps its two factors."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, x: Tensor, activation: str) -> Tensor:
        """Contiguous, of one shape."""
        from . import kernels

        ctx.save_for_backward(gate, x)
        ctx.activation = activation
        out, size = torch.empty_like(gate), gate.numel()
        if size:
            options = _options(size, activation)
            grid = (-(-size // options["BLOCK"]),)
            gpu.launch(kernels.product, grid, gate, x, out, size, **options)
        return out

    @staticmethod
    @once_differentiable  # PyTorch gives it no types, hence the silence below
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grads: Tensor
    ) -> tuple[Tensor | None, ...]:
        """At the gate and at x."""
        from . import kernels

        gate, x = ctx.saved_tensors
        at_gate, at_x, size = torch.empty_like(gate), torch.empty_like(x), gate.numel()
        if size:
            options = _options(size, ctx.activation)
            grid = (-(-size // options["BLOCK"]),)
            given = (gate, x, grads[0].contiguous(), at_gate, at_x, size)
            gpu.launch(kernels.product_gradient, grid, *given, **options)
        return at_gate, at_x, None


def gated(gate: Tensor, x: Tensor, activation: str) -> Tensor:
    """As ops.gating.gated: the gate of 16 or 32 bits, x of its dtype or fp32."""
    return _Product.apply(gate.contiguous(), x.contiguous(), activation)


def why_not(gate: Tensor, x: Tensor, activation: str) -> str | None:
    """16 or 32 bits, on a GPU."""
    if torch.compiler.is_compiling():
        return "torch.compile makes its own"
    if gate.dtype not in gpu.DTYPES or x.dtype not in gpu.DTYPES:
        return f"it takes 16 or 32 bits, not {gate.dtype} and {x.dtype}"
    if gate.shape != x.shape:
        return f"the shapes {tuple(gate.shape)} and {tuple(x.shape)} differ"
    return gpu.why_not(gate, x)
