"""The definition of the selective scan: a loop over T in float64. Every backend answers to it."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def scan(
    x: Float[Tensor, "B T E"],
    delta: Float[Tensor, "B T E"],
    A: Float[Tensor, "E N"],
    B: Float[Tensor, "B T N"],
    C: Float[Tensor, "B T N"],
    starts: Bool[Tensor, "B T"],
    h0: Float[Tensor, "B E N"],
) -> tuple[Float[Tensor, "B T E"], Float[Tensor, "B E N"]]:
    """y_t = sum_n C_t h_t with h_t = exp(delta_t A) h_{t-1} + delta_t B_t x_t, and the last h.

    Euler's step for B, as the published code has it, and not the exact hold that Mamba's equation 4
    writes. At `starts` h_{t-1} counts as 0, whatever delta is.
    """
    x, delta, h, ys = x.double(), delta.double(), h0.double(), list[Tensor]()
    for t in range(x.shape[1]):
        h = torch.where(starts[:, t, None, None], 0.0, h)
        decay = torch.exp(delta[:, t, :, None] * A.double())
        h = decay * h + delta[:, t, :, None] * B[:, t, None, :].double() * x[:, t, :, None]
        ys.append((C[:, t, None, :].double() * h).sum(-1))
    return (torch.stack(ys, dim=1) if ys else torch.empty_like(x)), h
