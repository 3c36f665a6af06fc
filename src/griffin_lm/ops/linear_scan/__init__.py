"""h_t = a_t * h_{t-1} + x_t, elementwise: the recurrence under RG-LRU, LRU and S6."""

import torch
from jaxtyping import Inexact
from torch import Tensor

from ..backend import Backend, always, choose
from . import compiled, reference, triton_gpu
from .gradient import LinearScan

BACKENDS = (
    Backend("triton", triton_gpu.scan, triton_gpu.why_not),
    Backend("native", compiled.scan, compiled.why_not),
    Backend("reference", reference.scan, always),
)


def linear_scan(
    x: Inexact[Tensor, "B T R"], a: Inexact[Tensor, "B T R"], h0: Inexact[Tensor, "B R"]
) -> Inexact[Tensor, "B T R"]:
    """All h of h_t = a_t * h_{t-1} + x_t, differentiable in x, a and h0.

    x, a: (B, T, R), h0: (B, R), one dtype for all: float32, float64, complex64 or complex128. Where
    a_t = 0 the past is dropped by selection, so that not even inf or NaN passes.
    """
    if x.shape[1] == 0:
        return torch.empty_like(x)
    run = choose("a linear scan", BACKENDS, x, a, h0)
    own = compiled.gradient if run is compiled.scan else None
    return LinearScan.apply(x, a, h0, run, own)
