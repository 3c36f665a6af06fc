"""The gated MLP block (Griffin, section 2.2): GeGLU with the tanh approximation of GELU."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu

from ..shapes import JSON


class GatedMLP(nn.Module):
    """down(gelu(gate(x)) * up(x)); `mlp_width` is the width of each of the two branches."""

    def __init__(self, width: int, mlp_width: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, mlp_width)
        self.up = nn.Linear(width, mlp_width)
        self.down = nn.Linear(mlp_width, width)

    def initialise(self, fan_in: int, depth: int, random: torch.Generator) -> None:
        """gate, up: variance 1 / fan_in; down: 2 / (depth * mlp_width), so the sum stays level."""
        options: JSON = {"generator": random}
        for linear in (self.gate, self.up):
            nn.init.normal_(linear.weight, std=fan_in**-0.5, **options)
        nn.init.normal_(self.down.weight, std=(2 / depth / self.down.in_features) ** 0.5, **options)
        for linear in (self.gate, self.up, self.down):
            nn.init.zeros_(linear.bias)

    def forward(self, x: Float[Tensor, "B T W"]) -> Float[Tensor, "B T W"]:
        """Tokenwise."""
        return self.down(gelu(self.gate(x), approximate="tanh") * self.up(x))
