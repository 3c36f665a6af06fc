"""The Real-Gated Linear Recurrent Unit, from gate pre-activations to states (Griffin, eqs. 1-4)."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import softplus

from ...precision import accumulation
from ..backend import Backend, always, choose
from ..derived import derived
from . import compiled, reference, triton_gpu
from .definition import C
from .reference import MAX_SLOPE, BoundedSqrt

__all__ = ["MAX_SLOPE", "BoundedSqrt", "C", "decay_rate", "rate_of", "rg_lru", "states"]

BACKENDS = (
    Backend("triton", triton_gpu.rg_lru, triton_gpu.why_not),
    Backend("native", compiled.rg_lru, compiled.why_not),
    Backend("reference", reference.rg_lru, always),
)


def decay_rate(Lambda: Float[Tensor, " R"]) -> Float[Tensor, " R"]:
    """c softplus(Lambda) in fp32, made once a weight; without a gradient."""
    return derived(Lambda, _rate)


def _rate(Lambda: Tensor) -> Tensor:
    return C * softplus(Lambda.float())


def rg_lru(
    x: Float[Tensor, "B T R"],
    r_logits: Float[Tensor, "B T R"],
    i_logits: Float[Tensor, "B T R"],
    Lambda: Float[Tensor, " R"],
    starts: Bool[Tensor, "B T"],
    h0: Float[Tensor, "B R"],
) -> Float[Tensor, "B T R"]:
    """h_t = a_t h_{t-1} + sqrt(1 - a_t^2) (i_t x_t), with log a_t = -c softplus(Lambda) r_t.

    r_logits, i_logits are the gates before their sigmoid. Where `starts`, h_t = i_t x_t. Whatever
    the dtypes that come in, all is computed in fp32 (float64 for float64), which is also h0's dtype
    and the result's. Lambda's sign is that of the published code: a = sigmoid(-Lambda) ** (c r).
    """
    return states(x, r_logits, i_logits, rate_of(Lambda, x.dtype), starts, h0)


def rate_of(Lambda: Float[Tensor, " R"], dtype: torch.dtype) -> Float[Tensor, " R"]:
    """c softplus(Lambda) in the dtype that activations of `dtype` are accumulated in."""
    return C * softplus(Lambda.to(accumulation(dtype)))


def states(
    x: Float[Tensor, "B T R"],
    r_logits: Float[Tensor, "B T R"],
    i_logits: Float[Tensor, "B T R"],
    rate: Float[Tensor, " R"],
    starts: Bool[Tensor, "B T"],
    h0: Float[Tensor, "B R"],
) -> Float[Tensor, "B T R"]:
    """As `rg_lru`, with c softplus(Lambda) in place of Lambda."""
    arguments = (x, r_logits, i_logits, rate, starts, h0)
    return choose("the RG-LRU", BACKENDS, *arguments)(*arguments)
