"""The definition of the RG-LRU: equations 1 to 4 of Griffin, one float64 step after another."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import softplus

C = 8.0  # eq. 3: the paper's constant c


def rg_lru(
    x: Float[Tensor, "B T R"],
    r_logits: Float[Tensor, "B T R"],
    i_logits: Float[Tensor, "B T R"],
    Lambda: Float[Tensor, " R"],
    starts: Bool[Tensor, "B T"],
    h0: Float[Tensor, "B R"],
) -> Float[Tensor, "B T R"]:
    """All h_t, in float64: a loop over T that follows the paper letter by letter."""
    x, r_logits, i_logits, Lambda, h = (
        each.double() for each in (x, r_logits, i_logits, Lambda, h0)
    )
    hs = []
    for t in range(x.shape[1]):
        r, i = r_logits[:, t].sigmoid(), i_logits[:, t].sigmoid()
        log_a = -C * r * softplus(Lambda)
        begins = starts[:, t, None]
        carried = log_a.exp() * h + (1 - (2 * log_a).exp()).sqrt() * (i * x[:, t])
        h = torch.where(begins, i * x[:, t], carried)
        hs.append(h)
    return torch.stack(hs, dim=1)
