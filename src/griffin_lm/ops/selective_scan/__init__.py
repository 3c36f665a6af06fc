"""The selective scan: h_t = exp(delta_t A) h_{t-1} + delta_t B_t x_t, y_t = C_t h_t (Mamba, S6).

E channels, each with N states of its own; delta, B and C depend on the token.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..backend import Backend, always, choose
from . import compiled
from .gradient import SelectiveScan

BACKENDS = (
    Backend("native", compiled.scan, compiled.why_not),
    Backend("reference", SelectiveScan.apply, always),
)


def selective_scan(
    x: Float[Tensor, "B T E"],
    delta: Float[Tensor, "B T E"],
    A: Float[Tensor, "E N"],
    B: Float[Tensor, "B T N"],
    C: Float[Tensor, "B T N"],
    starts: Bool[Tensor, "B T"],
    h0: Float[Tensor, "B E N"],
) -> tuple[Float[Tensor, "B T E"], Float[Tensor, "B E N"]]:
    """y and the last h, differentiable in all but `starts`. One dtype for all: float32 or float64.

    A is negative, delta >= 0; a token whose delta is 0 leaves h as it is, to the bit. Where
    `starts`, h_{t-1} is dropped by selection, so that not even inf or NaN passes. The states of a
    call, (B, T, E, N), are never in memory at once: the gradient computes them again in chunks.
    """
    if x.shape[1] == 0:
        return torch.empty_like(x), h0
    with torch.autocast(x.device.type, enabled=False):  # its products stay in the dtype promised
        run = choose("a selective scan", BACKENDS, x, delta, A, B, C, starts, h0)
        return run(x, delta, A, B, C, starts, h0)
