"""RMSNorm (Zhang and Sennrich 2019) with the scale stored as its difference from 1, as Gemma's."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..precision import accumulation


class RMSNorm(nn.Module):
    """y = x / sqrt(mean(x^2) + eps) * (1 + scale), in fp32, given back in x's dtype."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.scale = nn.Parameter(torch.empty(width))

    def initialise(self) -> None:
        """scale = 0, that is a factor of 1."""
        nn.init.zeros_(self.scale)

    def forward(self, x: Float[Tensor, "*B W"]) -> Float[Tensor, "*B W"]:
        """Normalises the last axis."""
        wide = x.to(accumulation(x.dtype))
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return (wide * (1 + self.scale.to(wide.dtype))).to(x.dtype)
