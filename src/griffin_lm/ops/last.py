"""The state that a call leaves behind, of all states that it went through."""

import torch
from jaxtyping import Float
from torch import Tensor

from ..shapes import Counts


def last_valid(
    x: Float[Tensor, "B T *S"], counts: Counts | None, before: Float[Tensor, "B *S"]
) -> Float[Tensor, "B *S"]:
    """x at each row's last valid token; `before` (to the bit) where a row has none.

    counts: valid tokens of each row, which come first; None: all T, of which there is one at least.
    """
    if counts is None:  # copied where x is longer, so that a state doesn't keep all of it
        return x[:, -1] if x.shape[1] == 1 else x[:, -1].clone()
    at = (counts - 1).clamp(min=0).view(-1, *[1] * (x.dim() - 1))
    last = x.gather(1, at.expand(-1, 1, *x.shape[2:])).squeeze(1)
    none = (counts == 0).view(-1, *[1] * (x.dim() - 2))
    return torch.where(none, before, last)
