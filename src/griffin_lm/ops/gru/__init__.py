"""The Gated Recurrent Unit, from input pre-activations to states (Cho et al. 2014, eqs. 5-8)."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import linear

from ...precision import accumulation


def gru(
    gates: Float[Tensor, "B T G"],
    w: Float[Tensor, "G R"],
    b: Float[Tensor, " G"],
    starts: Bool[Tensor, "B T"],
    h0: Float[Tensor, "B R"],
) -> Float[Tensor, "B T R"]:
    """All h of h_t = (1 - z_t) n_t + z_t h_{t-1}, in the form of cuDNN and torch.nn.GRU.

    gates: W_i x + b_i for reset r, update z and candidate n, one after the other (G = 3 R); w, b:
    W_h and b_h in that order. "Reset-after": n = tanh(i_n + r (W_hn h + b_hn)), so that the
    recurrent product is one matrix; the paper multiplies h by r before the product. Where `starts`,
    h_{t-1} is 0.

    The state goes through W_h and two sigmoids before it comes back, so the steps do not associate
    and nothing but a loop over T is possible. Computed in fp32 (float64 for float64).
    """
    dtype = accumulation(gates.dtype)
    gates, w, b, h = (each.to(dtype) for each in (gates, w, b, h0))
    hs: list[Tensor] = []
    for incoming, begins in zip(gates.unbind(1), starts.unbind(1), strict=True):
        h = h.masked_fill(begins[:, None], 0)
        i_r, i_z, i_n = incoming.chunk(3, dim=-1)
        h_r, h_z, h_n = linear(h, w, b).chunk(3, dim=-1)
        r, z = (i_r + h_r).sigmoid(), (i_z + h_z).sigmoid()
        n = torch.tanh(i_n + r * h_n)
        h = n + z * (h - n)
        hs.append(h)
    return torch.stack(hs, dim=1) if hs else gates.new_empty(gates.shape[0], 0, h.shape[1])
