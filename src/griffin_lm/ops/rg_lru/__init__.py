"""The Real-Gated Linear Recurrent Unit, from gate pre-activations to states (Griffin, eqs. 1-4)."""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import softplus

from ...precision import accumulation
from ..linear_scan import linear_scan
from .definition import C

# sqrt(1 - a^2) has an infinite slope at a = 1, where training likes to go; DeepMind caps it at 1000
# (recurrentgemma@2efa84d, torch/layers.py; RecurrentGemma report, section 2).
MAX_SLOPE = 1000.0


class BoundedSqrt(torch.autograd.Function):
    """sqrt(z), whose derivative 1 / (2 sqrt(z)) is bounded by MAX_SLOPE."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        """Any shape."""
        ctx.save_for_backward(z)
        return z.sqrt()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        """g / sqrt(max(4 z, MAX_SLOPE^-2))."""
        (z,) = ctx.saved_tensors
        return grads[0] * (4 * z).clamp(min=MAX_SLOPE**-2).rsqrt()


def rg_lru(
    x: Float[Tensor, "B T R"],
    r_logits: Float[Tensor, "B T R"],
    i_logits: Float[Tensor, "B T R"],
    Lambda: Float[Tensor, " R"],
    starts: Bool[Tensor, "B T"],
    h0: Float[Tensor, "B R"],
) -> Float[Tensor, "B T R"]:
    """h_t = a_t h_{t-1} + sqrt(1 - a_t^2) (i_t x_t), with log a_t = -c softplus(Lambda) r_t.

    r_logits, i_logits are the gates before their sigmoid. Where `starts`, h_t = i_t x_t. Whatever
    the dtypes that come in, all is computed in fp32 (float64 for float64), which is also h0's dtype
    and the result's. Lambda's sign is that of the published code: a = sigmoid(-Lambda) ** (c r).
    """
    dtype = accumulation(x.dtype)
    r, i = r_logits.to(dtype).sigmoid(), i_logits.to(dtype).sigmoid()
    log_a = -C * r * softplus(Lambda.to(dtype))
    begins = starts[..., None]
    a = log_a.exp().masked_fill(begins, 0)
    # 1 - a^2 from the logarithm: near a = 1 the difference would lose what little it has
    m: Tensor = BoundedSqrt.apply(-torch.expm1(2 * log_a))
    drive = m.masked_fill(begins, 1) * (i * x.to(dtype))
    return linear_scan(drive, a, h0)
