"""The embedding, the output head (the same matrix where they are tied), the soft cap on logits."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import embedding

from ..precision import accumulation
from ..shapes import JSON, Tokens
from .linear import multiply
from .quantized import QuantizedMatrix

_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


class Embedding(nn.Module):
    """Words in.

    With `scaled`, embeddings are multiplied by sqrt(width), rounded either to bfloat16 whatever the
    dtype of the weights (RecurrentGemma: 50.5 for a width of 2560), or to that dtype (Gemma).
    """

    quantizable = True

    def __init__(self, vocab: int, width: int, scaled: bool, rounding: str = "bfloat16") -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(vocab, width))
        root = torch.tensor(width**0.5 if scaled else 1.0, dtype=torch.float64, device="cpu")
        kept = torch.bfloat16 if rounding == "bfloat16" else None
        self._factors = {dtype: float(root.to(kept or dtype)) for dtype in _DTYPES}

    @property
    def factor(self) -> float:
        """What embeddings are multiplied by."""
        return self._factors[self.weight.dtype]

    def initialise(self, random: torch.Generator) -> None:
        """Normal with variance 1 / width."""
        options: JSON = {"generator": random}
        nn.init.normal_(self.weight, std=self.weight.shape[1] ** -0.5, **options)

    def forward(self, tokens: Tokens) -> Float[Tensor, "B T W"]:
        """Looks the tokens up."""
        weight: Tensor | QuantizedMatrix = self.weight
        if isinstance(weight, QuantizedMatrix):
            return weight.rows(tokens) * self.factor
        return embedding(tokens, weight) * self.factor


class Head(nn.Module):
    """Logits out, by a matrix `weight` (V, W) of its own: x weight^T, softly capped."""

    quantizable = True

    def __init__(self, vocab: int, width: int, cap: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(vocab, width))
        self.cap = cap

    def initialise(self, random: torch.Generator) -> None:
        """Normal with variance 1 / width."""
        options: JSON = {"generator": random}
        nn.init.normal_(self.weight, std=self.weight.shape[1] ** -0.5, **options)

    def forward(self, x: Float[Tensor, "*B W"]) -> Float[Tensor, "*B V"]:
        """(..., W) to (..., V)."""
        return capped(multiply(x, self.weight), self.cap)


class TiedHead(nn.Module):
    """Logits out, by the embedding's matrix, without its factor; no parameter of its own."""

    def __init__(self, embed: Embedding, cap: float) -> None:
        super().__init__()
        self._embed = (embed,)  # in a tuple it is no submodule: its weight keeps one name
        self.cap = cap

    @property
    def weight(self) -> Tensor | QuantizedMatrix:
        """The embedding's matrix (V, W)."""
        return self._embed[0].weight

    def initialise(self, random: torch.Generator) -> None:
        """Nothing to draw."""

    def forward(self, x: Float[Tensor, "*B W"]) -> Float[Tensor, "*B V"]:
        """(..., W) to (..., V)."""
        return capped(multiply(x, self.weight), self.cap)


def capped(logits: Tensor, cap: float) -> Tensor:
    """cap * tanh(logits / cap), computed in fp32, in the logits' dtype; 0 leaves them alone."""
    if not cap:
        return logits
    wide = logits.to(accumulation(logits.dtype))
    return (torch.tanh(wide / cap) * cap).to(logits.dtype)
