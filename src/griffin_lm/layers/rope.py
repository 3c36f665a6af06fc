"""Rotary position embedding (Su et al. 2021), in the rotate-half form, on a part of each head."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from ..precision import accumulation
from ..shapes import Tokens


class RopeScaling(NamedTuple):
    """Llama 3.1's stretch of slow frequencies, for contexts longer than the original one.

    Frequencies whose wavelength is under context / high stay; those over context / low are divided
    by factor; between them the divisor goes smoothly (Llama 3.1, `use_scaled_rope`).
    """

    factor: float
    low: float
    high: float
    context: int


def rotary_frequencies(
    width: int, base: float, scaling: RopeScaling | None = None, device: torch.device | None = None
) -> Float64[Tensor, " A"]:
    """base^(-2j / width) for j < width / 2, in radians a token, scaled where asked."""
    exponent = torch.arange(0, width, 2, dtype=torch.float64, device=device) / width
    frequency = base**-exponent
    if scaling is None:
        return frequency
    turns = scaling.context * frequency / (2 * math.pi)  # in the original context
    keep = ((turns - scaling.low) / (scaling.high - scaling.low)).clamp(0, 1)
    return frequency * (keep + (1 - keep) / scaling.factor)


def rotary_angles(
    position: Tokens, width: int, base: float, scaling: RopeScaling | None = None
) -> tuple[Float[Tensor, "B T 1 A"], Float[Tensor, "B T 1 A"]]:
    """cos and sin of position * frequency, in float64: see rotary_frequencies.

    float64 because float32 is off by 0.02 rad at position 10^6 and by 0.5 at 10^7.
    """
    # Apple's GPUs have no float64; the table is small, so it is made on the CPU for them
    where = torch.device("cpu") if position.device.type == "mps" else position.device
    frequency = rotary_frequencies(width, base, scaling, where)
    angle = position.to(where).double()[..., None, None] * frequency
    return angle.cos(), angle.sin()


def rotate(
    x: Float[Tensor, "B T H D"],
    angles: tuple[Float[Tensor, "B T 1 A"], Float[Tensor, "B T 1 A"]],
) -> Float[Tensor, "B T H D"]:
    """Turns dimension j together with j + A, for the first 2 A dimensions of each head."""
    dtype = accumulation(x.dtype)
    cos, sin = (angle.to(dtype).to(x.device) for angle in angles)
    half = cos.shape[-1]
    left, right = x[..., :half].to(dtype), x[..., half : 2 * half].to(dtype)
    turned = torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1)
    return torch.cat([turned.to(x.dtype), x[..., 2 * half :]], dim=-1)
