"""RMSNorm (Zhang and Sennrich 2019), its weight stored as Gemma does or as Llama does."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..ops.rms_norm import add_rms_norm, rms_norm


class RMSNorm(nn.Module):
    """y = x / sqrt(mean(x^2) + eps), times 1 + scale (`offset`, Gemma) or times scale (Llama).

    The quotient is taken in fp32. Gemma multiplies there and casts the product to x's dtype; Llama
    casts the quotient and multiplies in x's dtype. In fp32 the two are one; each is kept, because
    weights in bf16 were trained with it.
    """

    def __init__(self, width: int, eps: float, offset: bool = True) -> None:
        super().__init__()
        self.eps, self.offset = eps, offset
        self.scale = nn.Parameter(torch.empty(width))

    def initialise(self) -> None:
        """A factor of 1."""
        nn.init.constant_(self.scale, 0.0 if self.offset else 1.0)

    def forward(self, x: Float[Tensor, "*B W"]) -> Float[Tensor, "*B W"]:
        """Normalises the last axis."""
        return rms_norm(x, self.scale, self.eps, self.offset)

    def after_sum(
        self, x: Float[Tensor, "*B W"], added: Float[Tensor, "*B W"]
    ) -> tuple[Float[Tensor, "*B W"], Float[Tensor, "*B W"]]:
        """x + added, and that sum normalised: one walk over memory where a kernel serves."""
        return add_rms_norm(x, added, self.scale, self.eps, self.offset)
