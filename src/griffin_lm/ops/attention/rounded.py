"""Keys and values in int8, one scale for each token and key head: half the bytes of bf16.

A token's own key and value are rounded before anyone attends to them, so it makes no difference to
any token where a text is cut into calls. Products with the rounded keys are exact up to fp32 sums:
a score is scaled after its product, a weight before.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Float32, Int8
from torch import Tensor

from ...shapes import Counts, Tokens
from ..backend import Backend, always, choose
from ..quantized_linear.definition import quantize_rows
from . import seen_by, triton_gpu, windowed_attention, write_ring


class Rounded(NamedTuple):
    """Numbers q scale: q whole, in [-127, 127]; scale = max |x| / 127 over the last axis."""

    q: Int8[Tensor, "B N K D"]
    scale: Float32[Tensor, "B N K 1"]


def rounded(x: Float[Tensor, "B T K D"]) -> Rounded:
    """To nearest, ties to even, computed in fp32: the same by whatever backend."""
    return choose("rounding keys", ROUNDING, x)(x)


def _round(x: Tensor) -> Rounded:
    q, scale = quantize_rows(x.reshape(-1, x.shape[-1]))
    return Rounded(q.to(torch.int8).view(x.shape), scale.float().view(*x.shape[:-1], 1))


def restored(x: Rounded, dtype: torch.dtype) -> Float[Tensor, "B N K D"]:
    """The numbers, in a dtype of at least 16 bits."""
    return (x.q.to(x.scale.dtype) * x.scale).to(dtype)


def rounded_attention(
    q: Float[Tensor, "B T H D"],
    k: Rounded,
    v: Rounded,
    ring_k: Rounded,
    ring_v: Rounded,
    read: Counts,
    position: Tokens,
    reach: Counts | None = None,
) -> Float[Tensor, "B T H D"]:
    """As `windowed_attention`, with new and earlier keys and values rounded; in q's dtype."""
    seen = seen_by(position, ring_k.q.shape[1], reach)
    arguments = (q, *k, *v, *ring_k, *ring_v, read, seen)
    return choose("attention over rounded keys", BACKENDS, *arguments)(*arguments)


def _reference(
    q: Tensor,
    k: Tensor,
    k_scale: Tensor,
    v: Tensor,
    v_scale: Tensor,
    ring_k: Tensor,
    ring_k_scale: Tensor,
    ring_v: Tensor,
    ring_v_scale: Tensor,
    read: Tensor,
    seen: Tensor,
) -> Tensor:
    """All of it in q's dtype, by whatever serves that: right for a prompt, slow for a token."""
    pairs = ((k, k_scale), (v, v_scale), (ring_k, ring_k_scale), (ring_v, ring_v_scale))
    keys, values, *rings = (restored(Rounded(*pair), q.dtype) for pair in pairs)
    return windowed_attention(q, keys, values, rings[0], rings[1], read, seen)


ROUNDING = (
    Backend("triton", lambda x: Rounded(*triton_gpu.rounded(x)), triton_gpu.why_not_rounded),
    Backend("reference", _round, always),
)
BACKENDS = (
    Backend("triton", triton_gpu.attention_over_rounded, triton_gpu.why_not_over_rounded),
    Backend("reference", _reference, always),
)


def write_rounded(
    ring: Rounded, new: Rounded, read: Counts, count: Counts, in_place: bool = False
) -> Rounded:
    """As `write_ring`."""
    return Rounded(
        *(write_ring(*pair, read, count, in_place) for pair in zip(ring, new, strict=True))
    )
