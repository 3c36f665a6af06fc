"""The states of a selective scan, chunk by chunk, by whichever linear scan serves."""

import math
from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..backend import choose
from ..linear_scan import BACKENDS

ELEMENTS = 1 << 22  # numbers in a chunk's states: 16 MiB in fp32; a few such tensors live at a time


def chunks(length: int, per_token: int) -> Iterator[slice]:
    """Cuts T into pieces whose states have about ELEMENTS numbers; `per_token` is B * E * N.

    Never shorter than sqrt(T), so that the states kept between them stay few.
    """
    size = max(math.isqrt(length - 1) + 1, ELEMENTS // max(1, per_token))
    for begin in range(0, length, size):
        yield slice(begin, min(begin + size, length))


def decays(
    delta: Float[Tensor, "B T E"], A: Float[Tensor, "E N"], starts: Bool[Tensor, "B T"]
) -> Float[Tensor, "B T E N"]:
    """exp(delta A), and 0 where a document starts: there the linear scan selects."""
    return torch.exp(delta[..., None] * A).masked_fill(starts[..., None, None], 0)


def states(
    x: Float[Tensor, "B T E"],
    delta: Float[Tensor, "B T E"],
    B: Float[Tensor, "B T N"],
    decay: Float[Tensor, "B T E N"],
    h0: Float[Tensor, "B E N"],
) -> Float[Tensor, "B T E N"]:
    """All h of one chunk."""
    drive = (delta * x)[..., None] * B[:, :, None]
    return flat_scan(drive, decay, h0)


def flat_scan(
    x: Float[Tensor, "B T E N"],
    a: Float[Tensor, "B T E N"],
    h0: Float[Tensor, "B E N"],
    reverse: bool = False,
) -> Float[Tensor, "B T E N"]:
    """h_t = a_t h_{t-1} + x_t, or a_t h_{t+1} + x_t if `reverse`; keeps no graph of gradients."""
    flat = x.flatten(2), a.flatten(2), h0.flatten(1)
    scan = choose("a selective scan", BACKENDS, *flat)
    return scan(*flat, reverse=reverse).view_as(x)
