"""Rotary position embedding (Su et al. 2021), in the rotate-half form, on a part of each head."""

import torch
from jaxtyping import Float
from torch import Tensor

from ..precision import accumulation
from ..shapes import Tokens


def rotary_angles(
    position: Tokens, width: int, base: float
) -> tuple[Float[Tensor, "B T 1 A"], Float[Tensor, "B T 1 A"]]:
    """cos and sin of position * base^(-2j / width) for j < width / 2, in float64.

    float64 because float32 is off by 0.02 rad at position 10^6 and by 0.5 at 10^7.
    """
    # Apple's GPUs have no float64; the table is small, so it is made on the CPU for them
    where = torch.device("cpu") if position.device.type == "mps" else position.device
    exponent = torch.arange(0, width, 2, dtype=torch.float64, device=where) / width
    angle = position.to(where).double()[..., None, None] * base**-exponent
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
