"""A linear map whose matrix is block-diagonal: one block a head (Griffin, section 2.4)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..ops.linear.blocks import block_linear
from ..shapes import JSON


class BlockDiagonal(nn.Module):
    """y[h, o] = sum_i x[h, i] w[h, i, o] + b[h, o], with x's last axis cut into `heads` blocks.

    `out_width`: of y, cut in the same number of blocks; as wide as x unless told.
    """

    def __init__(self, width: int, heads: int, out_width: int | None = None) -> None:
        super().__init__()
        block, out = width // heads, (out_width or width) // heads
        self.w = nn.Parameter(torch.empty(heads, block, out))
        self.b = nn.Parameter(torch.empty(heads, out))

    def initialise(self, fan_in: int, random: torch.Generator) -> None:
        """w normal with variance 1 / fan_in, b = 0."""
        options: JSON = {"generator": random}
        nn.init.normal_(self.w, std=fan_in**-0.5, **options)
        nn.init.zeros_(self.b)

    def forward(self, x: Float[Tensor, "B T R"]) -> Float[Tensor, "B T O"]:
        """One small matrix product a head."""
        return block_linear(x, self.w, self.b)
