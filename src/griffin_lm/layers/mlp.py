"""The gated MLP block (Griffin, section 2.2; Shazeer 2020): GeGLU, or SwiGLU as in Llama."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..ops import native
from ..ops.gating import gated
from ..shapes import JSON
from . import halves
from .linear import Linear

GATES = {"geglu": "gelu", "swiglu": "silu"}


class GatedMLP(nn.Module):
    """down(act(gate(x)) * up(x)); `mlp_width` is the width of each of the two branches.

    kind: "geglu" (act is GELU) or "swiglu" (SiLU). bias: the three linear maps have biases.
    """

    def __init__(self, width: int, mlp_width: int, kind: str = "geglu", bias: bool = True) -> None:
        super().__init__()
        self.activation = GATES[kind]
        self.gate = Linear(width, mlp_width, bias=bias)
        self.up = Linear(width, mlp_width, bias=bias)
        self.down = Linear(mlp_width, width, bias=bias)

    def initialise(self, fan_in: int, depth: int, random: torch.Generator) -> None:
        """gate, up: variance 1 / fan_in; down: 2 / (depth * mlp_width), so the sum stays level."""
        options: JSON = {"generator": random}
        for linear in (self.gate, self.up):
            nn.init.normal_(linear.weight, std=fan_in**-0.5, **options)
        nn.init.normal_(self.down.weight, std=(2 / depth / self.down.in_features) ** 0.5, **options)
        for linear in (self.gate, self.up, self.down):
            if linear.bias is not None:  # pyright: ignore[reportUnnecessaryComparison]
                nn.init.zeros_(linear.bias)

    def fused(self, norm: nn.Module, x: Float[Tensor, "B T W"]) -> Float[Tensor, "B T W"] | None:
        """x + self(norm(x)) in one call of the compiled library; None where that may not be."""
        described = halves.described(x, self, norm, self._describe)
        return None if described is None else native.mlp_half(described, x)

    def _describe(self, words: halves.Description) -> None:
        for name in ("gate", "up", "down"):
            words.matrix(self, name)
        words.word(self.activation == "gelu")

    def forward(self, x: Float[Tensor, "B T W"]) -> Float[Tensor, "B T W"]:
        """Tokenwise."""
        return self.down(gated(self.gate(x), self.up(x), self.activation))
