"""The definition of a linear scan: a loop over T. Every backend answers to it, gradients too."""

import torch
from jaxtyping import Inexact
from torch import Tensor


def scan(
    x: Inexact[Tensor, "B T R"], a: Inexact[Tensor, "B T R"], h0: Inexact[Tensor, "B R"]
) -> Inexact[Tensor, "B T R"]:
    """h_t = a_t * h_{t-1} + x_t, one step after another; where a_t = 0 nothing of h_{t-1} is left.

    A selection rather than a product at a_t = 0: 0 * inf would be NaN, and a document that
    overflowed must not reach the next one.
    """
    h, hs = h0, []
    for t in range(x.shape[1]):
        h = torch.where(a[:, t] == 0, x[:, t], a[:, t] * h + x[:, t])
        hs.append(h)
    return torch.stack(hs, dim=1) if hs else torch.empty_like(x)
