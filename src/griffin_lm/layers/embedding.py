"""The embedding, which is also the output head (tied), and the soft cap on logits."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import embedding, linear

from ..precision import accumulation
from ..shapes import JSON, Tokens


class TiedEmbedding(nn.Module):
    """Words in, logits out, by one matrix.

    With `scaled`, embeddings (not logits) are multiplied by sqrt(width) rounded to bfloat16, as the
    published weights were trained: 50.5 for a width of 2560, whatever the dtype of the weights.
    """

    def __init__(self, vocab: int, width: int, scaled: bool, cap: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(vocab, width))
        self.factor = float(torch.tensor(width**0.5, device="cpu").bfloat16()) if scaled else 1.0
        self.cap = cap

    def initialise(self, random: torch.Generator) -> None:
        """Normal with variance 1 / width."""
        options: JSON = {"generator": random}
        nn.init.normal_(self.weight, std=self.weight.shape[1] ** -0.5, **options)

    def forward(self, tokens: Tokens) -> Float[Tensor, "B T W"]:
        """Looks the tokens up."""
        return embedding(tokens, self.weight) * self.factor

    def logits(self, x: Float[Tensor, "*B W"]) -> Float[Tensor, "*B V"]:
        """x E^T, then cap * tanh(logits / cap) unless cap is 0; in x's dtype, the cap in fp32."""
        logits = linear(x, self.weight)
        if not self.cap:
            return logits
        wide = logits.to(accumulation(logits.dtype))
        return (torch.tanh(wide / self.cap) * self.cap).to(logits.dtype)
