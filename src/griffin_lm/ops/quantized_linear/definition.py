"""What a product with quantised weights is: activations in int8, one scale a row; exact sums."""

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from .packing import Int4Weight, Int8Weight, dequantize_int4, dequantize_int8


def quantize_rows(
    x: Float[Tensor, "M K"],
) -> tuple[Float64[Tensor, "M K"], Float64[Tensor, "M 1"]]:
    """Whole numbers in [-127, 127] and their scale, max |x| / 127; to nearest, ties to even.

    Computed in fp32, as every kernel does, so that all round alike.
    """
    wide = x.float()
    largest = wide.abs().amax(1, keepdim=True)
    # one division, rounded once: `127 / tensor` would be 127 times a rounded reciprocal
    inverse = torch.where(largest > 0, torch.full_like(largest, 127) / largest, 0)
    q = (wide * inverse).round()
    return q.double(), (largest / 127).double()


def linear_int8(
    x: Float[Tensor, "M K"], weight: Int8Weight, bias: Float[Tensor, " N"] | None
) -> Float64[Tensor, "M N"]:
    """In float64."""
    q, scale = quantize_rows(x)
    y = q @ dequantize_int8(weight).double().T * scale
    return y if bias is None else y + bias.double()


def linear_int4(
    x: Float[Tensor, "M K"], weight: Int4Weight, rows: int, bias: Float[Tensor, " N"] | None
) -> Float64[Tensor, "M N"]:
    """In float64; the weight has `rows` rows."""
    q, scale = quantize_rows(x)
    y = q @ dequantize_int4(weight, rows, x.shape[1]).double().T * scale
    return y if bias is None else y + bias.double()
