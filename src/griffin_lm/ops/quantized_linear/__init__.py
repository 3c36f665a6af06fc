"""y = x w^T + b with weights of 8 or 4 bits; activations are rounded to int8, one scale a row.

One arithmetic whatever the number of rows: sums of products of integers are exact, so a row gets
the same bits in any batch (with the compiled kernels; the reference promises a tolerance).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from .. import native
from ..backend import Backend, always, choose
from . import triton_gpu
from .calibrated import quantize_int4_calibrated
from .gradient import Dense, Run, frozen_product
from .packing import (
    Int4Weight,
    Int8Weight,
    dequantize_int4,
    dequantize_int8,
    packed_layout,
    quantize_int4,
    quantize_int8,
)

__all__ = [
    "Int4Weight",
    "Int8Weight",
    "dequantize_int4",
    "dequantize_int8",
    "linear_int4",
    "linear_int8",
    "packed_layout",
    "quantize_int4",
    "quantize_int4_calibrated",
    "quantize_int8",
]


def linear_int8(
    x: Float[Tensor, "*B K"], weight: Int8Weight, bias: Float[Tensor, " N"] | None = None
) -> Float[Tensor, "*B N"]:
    """(..., K) to (..., N), in x's dtype. No gradient reaches the weight."""

    y = _with_gradient(
        lambda flat: choose("int8 weights", INT8_BACKENDS, flat, weight, bias)(flat, weight, bias),
        lambda: dequantize_int8(weight),
        x,
        bias,
    )
    return y.view(*x.shape[:-1], len(weight.scale))


def linear_int4(
    x: Float[Tensor, "*B K"],
    weight: Int4Weight,
    rows: int,
    bias: Float[Tensor, " N"] | None = None,
) -> Float[Tensor, "*B N"]:
    """(..., K) to (..., N = rows), in x's dtype. No gradient reaches the weight."""
    columns = x.shape[-1]
    y = _with_gradient(
        lambda flat: choose("int4 weights", INT4_BACKENDS, flat, weight, bias)(
            flat, weight, rows, bias
        ),
        lambda: dequantize_int4(weight, rows, columns),
        x,
        bias,
    )
    return y.view(*x.shape[:-1], rows)


def _with_gradient(run: Run, dense: Dense, x: Tensor, bias: Tensor | None) -> Tensor:
    """run of x as (M, K); where a gradient is wanted, any backend serves and it is exact."""
    flat = x.reshape(-1, x.shape[-1])
    wanted = x.requires_grad or (bias is not None and bias.requires_grad)
    if torch.is_grad_enabled() and wanted and not torch.compiler.is_compiling():
        return frozen_product(run, dense, flat, bias)
    return run(flat)


def _native_int8(x: Tensor, weight: Int8Weight, bias: Tensor | None) -> Tensor:
    return native.linear_int8(x.contiguous(), *weight, bias)


def _native_int4(x: Tensor, weight: Int4Weight, rows: int, bias: Tensor | None) -> Tensor:
    return native.linear_int4(x.contiguous(), *weight, rows, bias)


def _why_not_native(x: Tensor, weight: tuple[Tensor, ...], bias: Tensor | None) -> str | None:
    if torch.compiler.is_compiling():
        return "torch.compile makes its own"
    if torch.is_grad_enabled() and x.requires_grad:
        return "it has no gradient: use torch.no_grad()"
    if x.dtype not in (torch.bfloat16, torch.float32):
        return f"it takes bfloat16 or float32, not {x.dtype}"
    if bias is not None and bias.dtype not in (torch.bfloat16, torch.float32):
        return f"the bias is {bias.dtype}"
    return native.why_not(x, *weight, bias)


def _reference_int8(x: Tensor, weight: Int8Weight, bias: Tensor | None) -> Tensor:
    return _product(x, dequantize_int8(weight), bias)


def _reference_int4(x: Tensor, weight: Int4Weight, rows: int, bias: Tensor | None) -> Tensor:
    return _product(x, dequantize_int4(weight, rows, x.shape[1]), bias)


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    wide = x.float()
    largest = wide.detach().abs().amax(1, keepdim=True)
    scale = torch.where(largest > 0, largest / 127, 1)
    inverse = torch.where(largest > 0, torch.full_like(largest, 127) / largest, 0)
    q = (wide.detach() * inverse).round()
    # the gradient of rounding is taken as 1 (Bengio et al. 2013)
    y = (q * scale + (wide - wide.detach())) @ weight.T
    return (y if bias is None else y + bias).to(x.dtype)


INT8_BACKENDS = (
    Backend("triton", triton_gpu.linear_int8, triton_gpu.why_not),
    Backend("native", _native_int8, _why_not_native),
    Backend("reference", _reference_int8, always),
)
INT4_BACKENDS = (
    Backend("triton", triton_gpu.linear_int4, triton_gpu.why_not),
    Backend("native", _native_int4, _why_not_native),
    Backend("reference", _reference_int4, always),
)
