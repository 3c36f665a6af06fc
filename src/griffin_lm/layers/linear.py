"""The linear map of every layer: nn.Linear, whose product the backends compute."""

from jaxtyping import Float
from torch import Tensor, nn

from ..ops.linear import linear
from .quantized import QuantizedMatrix


class Linear(nn.Linear):
    """y = x W^T + b; W (out, in) is a parameter, or a QuantizedMatrix that took its place."""

    quantizable = True

    def forward(self, input: Float[Tensor, "*B K"]) -> Float[Tensor, "*B N"]:
        """(..., K) to (..., N)."""
        return multiply(input, self.weight, self.bias)


def multiply(
    x: Float[Tensor, "*B K"], weight: Tensor | QuantizedMatrix, bias: Tensor | None = None
) -> Float[Tensor, "*B N"]:
    """x W^T + b, whatever W is stored in."""
    if isinstance(weight, QuantizedMatrix):
        return weight.multiply(x, bias)
    return linear(x, weight, bias)
