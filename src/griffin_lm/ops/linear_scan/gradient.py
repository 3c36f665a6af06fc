"""The gradient of a linear scan, written once for every backend that has none of its own.

The backward of a linear scan is a linear scan backwards: with G_t the whole gradient at h_t,

    G_t = g_t + conj(a_{t+1}) G_{t+1},   dx_t = G_t,   da_t = G_t conj(h_{t-1}),
    dh_0 = conj(a_1) G_1.

Where a_t = 0 (a document starts) nothing passes, backwards either: selected, not multiplied.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Scan = Callable[..., Tensor]
Gradient = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]


class LinearScan(torch.autograd.Function):
    """All h of a scan by a given backend; backward by its gradient, or by its scan reversed."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, a: Tensor, h0: Tensor, scan: Scan, gradient: Gradient | None
    ) -> Tensor:
        """Shapes: x, a (B, T, R); h0 (B, R). Saves a, h0 and the result.

        gradient: of a, h0, the result and the slope there, those at x, a and h0.
        """
        hs = scan(x, a, h0)
        ctx.save_for_backward(a, h0, hs)
        ctx.scan, ctx.gradient = scan, gradient
        return hs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """One reversed scan, and two products."""
        a, h0, hs = ctx.saved_tensors
        (g,) = grads
        if ctx.gradient is not None:
            return *ctx.gradient(a, h0, hs, g), None, None
        a = a.conj()
        following = torch.cat([a[:, 1:], torch.zeros_like(a[:, :1])], dim=1)
        whole = ctx.scan(g, following, torch.zeros_like(h0), reverse=True)
        previous = torch.cat([h0[:, None], hs[:, :-1]], dim=1)
        cut = a == 0
        da = (whole * previous.conj()).masked_fill(cut, 0) if ctx.needs_input_grad[1] else None
        dh0 = (a[:, 0] * whole[:, 0]).masked_fill(cut[:, 0], 0) if ctx.needs_input_grad[2] else None
        return whole, da, dh0, None, None
