"""Weights in 8 and 4 bits: from floats to what the kernels read, and back.

int8   one scale a row:  w[n, k] ~ scale[n] * q[n, k],  |q| <= 127
int4   one scale for 32 neighbours of a row:  w ~ scale * (nibble - 8);  4.5 bits a weight with the
       scale in bf16. The scale may be negative: the side of the group's extreme gets the step
       more (as in llama.cpp's Q4_0), and of some scales around it the best one is taken.
"""

from typing import NamedTuple

import torch
from jaxtyping import BFloat16, Float, Float32, Int8, Int32, UInt8
from torch import Tensor

GROUP = 32  # weights of a row that share a scale
SHARES = (1.0, 0.95, 0.9, 0.85, 0.8, -1.15, -1.05, -0.95, -0.87)  # of int4 scales that are tried
PANEL = 16  # rows that lie interleaved, so that one vector holds a column of them


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


def quantize_int8(weight: Float[Tensor, "N K"]) -> Int8Weight:
    """Rows to nearest, ties to even; a row of zeros has the scale 0."""
    wide = weight.float()
    largest = wide.abs().amax(1)
    inverse = torch.where(largest > 0, 127 / largest, 0)
    q = (wide * inverse[:, None]).round_().to(torch.int8)
    return Int8Weight(q, largest / 127, q.sum(1, dtype=torch.int32))


def quantize_int4(weight: Float[Tensor, "N K"]) -> Int4Weight:
    """Groups to nearest; rows and columns that fill up panels and groups are zeros."""
    rows, columns = weight.shape
    wide = torch.zeros(-(-rows // PANEL) * PANEL, -(-columns // GROUP) * GROUP)
    wide[:rows, :columns] = weight
    groups = wide.view(len(wide), -1, GROUP)
    scale = _best_scale(groups)
    nibbles = (_steps(groups, scale) + 8).to(torch.uint8)
    nibbles = nibbles.view(-1, PANEL, groups.shape[1], 2, 4, 4)  # P, i, g, half, r, j
    packed = nibbles[:, :, :, 0] | (nibbles[:, :, :, 1] << 4)  # P, i, g, r, j
    return Int4Weight(
        packed.permute(0, 2, 3, 1, 4).contiguous(),
        scale.view(-1, PANEL, groups.shape[1]).transpose(1, 2).contiguous(),
    )


def _steps(groups: Float32[Tensor, "N G 32"], scale: Float[Tensor, "N G 1"]) -> Tensor:
    """Whole numbers from -8 to 7."""
    inverse = torch.where(scale == 0, 0, 1 / scale.float())
    return (groups * inverse).round_().clamp_(-8, 7)


def _best_scale(groups: Float32[Tensor, "N G 32"]) -> BFloat16[Tensor, "N G 1"]:
    """Of some scales around the one that meets the extreme, that of the least squared error."""
    extreme = groups.gather(2, groups.abs().argmax(2, keepdim=True))
    best = (extreme / -8).bfloat16()
    least = torch.full_like(extreme, torch.inf)
    for share in SHARES:
        scale = (extreme / -8 * share).bfloat16()
        off = (_steps(groups, scale) * scale.float() - groups).square_().sum(2, keepdim=True)
        better = off < least
        best, least = torch.where(better, scale, best), torch.where(better, off, least)
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
