"""The gradient of a product with frozen, rounded weights: dy W, with W made anew going backward.

Kept for the way back are the packed weights, which are in memory anyway, never a dense copy. The
rounding of activations to int8 counts as the identity (straight-through, Bengio et al. 2013).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Run = Callable[[Tensor], Tensor]
Dense = Callable[[], Tensor]


def frozen_product(run: Run, dense: Dense, x: Tensor, bias: Tensor | None) -> Tensor:
    """run(x) (M, N), which adds the bias, with the gradients dy W at x (M, K) and sum dy at bias.

    dense: makes W (N, K) in fp32. Products going backward are in x's dtype.
    """
    return _FrozenProduct.apply(x, bias, run, dense)


class _FrozenProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor | None, run: Run, dense: Dense) -> Tensor:
        """Without a graph, so that a kernel that has no gradient serves."""
        ctx.dense, ctx.kinds = dense, (x.dtype, None if bias is None else bias.dtype)
        return run(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """At x and at the bias."""
        (dy,), (x_kind, bias_kind) = grads, ctx.kinds
        at_x = at_bias = None
        if ctx.needs_input_grad[0]:
            at_x = dy.to(x_kind) @ ctx.dense().to(x_kind)
        if ctx.needs_input_grad[1]:
            at_bias = dy.sum(0, dtype=torch.promote_types(dy.dtype, torch.float32)).to(bias_kind)
        return at_x, at_bias, None, None
