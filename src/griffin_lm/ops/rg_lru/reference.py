"""The RG-LRU on PyTorch's own operations and the linear scan: any device, any dtype."""

from typing import Any

import torch
from torch import Tensor

from ...precision import accumulation
from ..linear_scan import linear_scan

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
    x: Tensor, r_logits: Tensor, i_logits: Tensor, rate: Tensor, starts: Tensor, h0: Tensor
) -> Tensor:
    """All states; rate (R) is c softplus(Lambda), in the dtype of the accumulation."""
    dtype = accumulation(x.dtype)
    r, i = r_logits.to(dtype).sigmoid(), i_logits.to(dtype).sigmoid()
    log_a = -r * rate
    begins = starts[..., None]
    a = log_a.exp().masked_fill(begins, 0)
    # 1 - a^2 from the logarithm: near a = 1 the difference would lose what little it has
    m: Tensor = BoundedSqrt.apply(-torch.expm1(2 * log_a))
    drive = m.masked_fill(begins, 1) * (i * x.to(dtype))
    return linear_scan(drive, a, h0)
