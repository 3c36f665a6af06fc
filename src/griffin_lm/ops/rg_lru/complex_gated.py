"""The complex-gated RG-LRU (Griffin, appendix B, as DeepMind's JAX code computes it)."""

import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor
from torch.nn.functional import softplus

from ...precision import accumulation
from ..linear_scan import linear_scan
from . import BoundedSqrt
from .definition import C


def complex_rg_lru(
    x: Float[Tensor, "B T R"],
    r_logits: Float[Tensor, "B T N"],
    i_logits: Float[Tensor, "B T N"],
    Lambda: Float[Tensor, " N"],
    theta: Float[Tensor, " N"],
    starts: Bool[Tensor, "B T"],
    h0: Float[Tensor, "B R"],
) -> Float[Tensor, "B T R"]:
    """h_t = a_t h_{t-1} + sqrt(1 - |a_t|^2) (i_t x_t), with a_t = exp(log a_t + i theta r_t).

    N = R / 2 complex numbers: x, h0 and the result hold their real parts, then their imaginary
    ones. The gates r and i (before their sigmoid) and log a_t = -c softplus(Lambda) r_t are real,
    one a number. The angle is theta r_t, without the c that the paper's power a^(c r) would bring.
    Where `starts`, h_t = i_t x_t. Computed in complex64 (complex128 for float64).
    """
    dtype = accumulation(x.dtype)
    r, i = r_logits.to(dtype).sigmoid(), i_logits.to(dtype).sigmoid()
    log_a = -C * r * softplus(Lambda.to(dtype))
    begins = starts[..., None]
    a = torch.polar(log_a.exp(), theta.to(dtype) * r).masked_fill(begins, 0)
    m: Tensor = BoundedSqrt.apply(-torch.expm1(2 * log_a))
    drive = (m.masked_fill(begins, 1) * i) * merged(x.to(dtype))
    hs = linear_scan(drive, a, merged(h0))
    return torch.cat([hs.real, hs.imag], dim=-1)


def merged(halves: Float[Tensor, "*B R"]) -> Complex[Tensor, "*B N"]:
    """Complex numbers whose real parts are the first half of the last axis."""
    real, imaginary = halves.chunk(2, dim=-1)
    return torch.complex(real, imaginary)
