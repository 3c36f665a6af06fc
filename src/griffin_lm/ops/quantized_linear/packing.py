"""Weights in 8 and 4 bits: from floats to what the kernels read, and back.

int8   one scale a row:  w[n, k] ~ scale[n] * q[n, k],  |q| <= 127
int4   one scale for 32 neighbours of a row:  w ~ scale * (nibble - 8);  4.5 bits a weight with the
       scale in bf16. The scale may be negative: the side of the group's extreme gets the step
       more (as in llama.cpp's Q4_0), and of many scales around it the best one is taken.
"""

from collections.abc import Iterator
from typing import NamedTuple, TypeVar

import torch
from jaxtyping import BFloat16, Float, Float32, Int8, Int32, UInt8
from torch import Tensor

GROUP = 32  # weights of a row that share a scale
SHARES = tuple(sign * step / 20 for step in range(13, 26) for sign in (1, -1))  # tried for int4
PANEL = 16  # rows that lie interleaved, so that one vector holds a column of them
_PIECE = 1 << 18  # weights that are rounded together: few, so that they stay in a core's cache


class Int8Weight(NamedTuple):
    """q (N, K); scale (N); sums (N): of each row's q, which kernels for unsigned bytes need."""

    q: Int8[Tensor, "N K"]
    scale: Float32[Tensor, " N"]
    sums: Int32[Tensor, " N"]


class Int4Weight(NamedTuple):
    """nibbles (N / 16, K / 32, 4, 16, 4) bytes, scale (N / 16, K / 32, 16); N, K rounded up.

    Byte [p, g, r, i, j] holds of row 16 p + i, in group g, weight 4 r + j in its low nibble and
    weight 16 + 4 r + j in its high one.
    """

    nibbles: UInt8[Tensor, "P G 4 16 4"]
    scale: BFloat16[Tensor, "P G 16"]


_Packed = TypeVar("_Packed", Int8Weight, Int4Weight)


def quantize_int8(weight: Float[Tensor, "N K"]) -> Int8Weight:
    """Rows to nearest, ties to even; a row of zeros has the scale 0."""
    made = _empty(Int8Weight, packed_layout("int8", *weight.shape), weight.device)
    for rows in pieces_of(weight):
        wide = weight[rows].float()
        largest = wide.abs().amax(1)
        inverse = torch.where(largest > 0, 127 / largest, 0)
        made.q[rows] = (wide * inverse[:, None]).round_().to(torch.int8)
        made.scale[rows] = largest / 127
        made.sums[rows] = made.q[rows].sum(1, dtype=torch.int32)
    return made


def quantize_int4(weight: Float[Tensor, "N K"]) -> Int4Weight:
    """Groups to nearest; rows and columns that fill up panels and groups are zeros."""
    made = empty_int4(weight)
    for rows in pieces_of(weight):
        groups = in_groups(weight[rows])
        scale = best_scale(groups)
        put_int4(made, rows.start, steps_of(groups, scale), scale)
    return made


def empty_int4(weight: Float[Tensor, "N K"]) -> Int4Weight:
    """Room for the nibbles and scales of a matrix."""
    return _empty(Int4Weight, packed_layout("int4", *weight.shape), weight.device)


def in_groups(rows: Float[Tensor, "M K"]) -> Float32[Tensor, "N G 32"]:
    """Rows in fp32, cut into groups; zeros fill up panels (N is a multiple of 16) and groups."""
    count, groups = -(-rows.shape[0] // PANEL) * PANEL, -(-rows.shape[1] // GROUP)
    wide = torch.zeros(count, groups * GROUP, device=rows.device)
    wide[: rows.shape[0], : rows.shape[1]] = rows
    return wide.view(count, groups, GROUP)


def put_int4(
    made: Int4Weight, first: int, steps: Float32[Tensor, "N G 32"], scale: Float[Tensor, "N G 1"]
) -> None:
    """Writes rows from `first` on, whole panels of them: steps from -8 to 7 and their scales."""
    count, groups = steps.shape[:2]
    nibbles = (steps + 8).to(torch.uint8).view(-1, PANEL, groups, 2, 4, 4)  # P, i, g, half, r, j
    packed = nibbles[:, :, :, 0] | (nibbles[:, :, :, 1] << 4)  # P, i, g, r, j
    panels = slice(first // PANEL, (first + count) // PANEL)
    made.nibbles[panels] = packed.permute(0, 2, 3, 1, 4)
    made.scale[panels] = scale.view(-1, PANEL, groups).transpose(1, 2)


Layout = dict[str, tuple[tuple[int, ...], torch.dtype]]


def packed_layout(kind: str, rows: int, columns: int) -> Layout:
    """Shape and dtype of each tensor that a matrix (rows, columns) becomes as "int8" or "int4"."""
    if kind == "int8":
        parts: Layout = {"q": ((rows, columns), torch.int8)}
        return parts | {"scale": ((rows,), torch.float32), "sums": ((rows,), torch.int32)}
    panels, groups = -(-rows // PANEL), -(-columns // GROUP)
    parts = {"nibbles": ((panels, groups, 4, PANEL, 4), torch.uint8)}
    return parts | {"scale": ((panels, groups, PANEL), torch.bfloat16)}


def _empty(made: type[_Packed], layout: Layout, device: torch.device) -> _Packed:
    return made(**{name: torch.empty(s, dtype=d, device=device) for name, (s, d) in layout.items()})


def pieces_of(weight: Tensor, most: int = _PIECE) -> Iterator[slice]:
    """Whole panels of rows of `most` weights, few enough that the copies in fp32 stay small."""
    step = max(1, most // max(1, weight.shape[1]) // PANEL) * PANEL
    return (slice(at, min(at + step, len(weight))) for at in range(0, len(weight), step))


def steps_of(
    weights: Float32[Tensor, "*N L"], scale: Float[Tensor, "*N 1"]
) -> Float32[Tensor, "*N L"]:
    """Whole numbers from -8 to 7, of weights that share a scale."""
    inverse = torch.where(scale == 0, 0, 1 / scale.float())
    return (weights * inverse).round_().clamp_(-8, 7)


def best_scale(groups: Float32[Tensor, "N G 32"]) -> BFloat16[Tensor, "N G 1"]:
    """That of the least squared error: of some around the one that meets the extreme, then refined.

    Refined: with the steps that a scale leads to, the best scale is <w, q> / <q, q>; twice.
    """
    extreme = groups.gather(2, groups.abs().argmax(2, keepdim=True))
    best = (extreme / -8).bfloat16()
    least = torch.full_like(extreme, torch.inf)

    def keep(scale: Tensor) -> None:
        nonlocal best, least
        off = (steps_of(groups, scale) * scale.float() - groups).square_().sum(2, keepdim=True)
        better = off < least
        best, least = torch.where(better, scale, best), torch.where(better, off, least)

    for share in SHARES:
        keep((extreme / -8 * share).bfloat16())
    for _ in range(2):
        q = steps_of(groups, best)
        fitted = (q * groups).sum(2, keepdim=True) / q.square().sum(2, keepdim=True)
        keep(torch.where(fitted.isfinite(), fitted, 0).bfloat16())
    return best


def dequantize_int8(weight: Int8Weight) -> Float32[Tensor, "N K"]:
    """What the bytes stand for."""
    return weight.q.float() * weight.scale[:, None]


def dequantize_int4(weight: Int4Weight, rows: int, columns: int) -> Float32[Tensor, "N K"]:
    """What the nibbles stand for, without what fills up panels and groups."""
    panels, groups = weight.scale.shape[:2]
    low, high = weight.nibbles & 15, weight.nibbles >> 4
    nibbles = torch.stack([low, high], dim=2).permute(0, 4, 1, 2, 3, 5)  # P, i, g, half, r, j
    scale = weight.scale.transpose(1, 2).float()[..., None]
    wide = (nibbles.reshape(panels, PANEL, groups, GROUP).float() - 8) * scale
    return wide.reshape(panels * PANEL, groups * GROUP)[:rows, :columns]
