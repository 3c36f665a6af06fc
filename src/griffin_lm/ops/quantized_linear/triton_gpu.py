"""Products with weights of 8 and 4 bits by Triton, for the few rows of a decode step."""

import torch
from torch import Tensor

from .. import gpu
from ..backend import preferred
from .packing import GROUP, Int4Weight, Int8Weight

MOST_ROWS = 16  # beyond, weights would be read too often: dequantised, a matrix product is faster
_WIDEST = 65_536  # of a row of x that a program holds in registers


def quantized(x: Tensor, filled: int) -> tuple[Tensor, Tensor]:
    """x (M, K) as int8, filled up with zeros, and its scales (M)."""
    from . import kernels

    rows, width = x.shape
    q = torch.empty(rows, filled, dtype=torch.int8, device=x.device)
    scale = torch.empty(rows, dtype=torch.float32, device=x.device)
    block = gpu.power_of_two(filled)
    warps = min(16, max(1, block // 512))
    gpu.launch(kernels.quantize, (rows,), x, q, scale, width, filled, BLOCK=block, warps=warps)
    return q, scale


def linear_int8(x: Tensor, weight: Int8Weight, bias: Tensor | None) -> Tensor:
    """x (M, K) of 16 or 32 bits to (M, N) in x's dtype."""
    from . import kernels

    (rows, width), count = x.shape, weight.scale.shape[0]
    y = torch.empty(rows, count, dtype=x.dtype, device=x.device)
    if y.numel() == 0:
        return y
    q, scale = quantized(x.contiguous(), width)
    gpu.launch(
        kernels.int8_rows,
        (-(-count // 4) * rows,),
        *(q, scale, weight.q, weight.scale, y if bias is None else bias, y, width, count, rows),
        BIASED=bias is not None,
        ROWS=4,
        BLOCK=min(1024, gpu.power_of_two(width)),
    )
    return y


def linear_int4(x: Tensor, weight: Int4Weight, rows: int, bias: Tensor | None) -> Tensor:
    """x (M, K) of 16 or 32 bits to (M, N = rows) in x's dtype."""
    from . import kernels

    panels, groups = weight.scale.shape[:2]
    y = torch.empty(x.shape[0], rows, dtype=x.dtype, device=x.device)
    if y.numel() == 0:
        return y
    q, scale = quantized(x.contiguous(), groups * GROUP)
    gpu.launch(
        kernels.int4_panels,
        (panels * x.shape[0],),
        *(q, scale, weight.nibbles, weight.scale, y if bias is None else bias, y, groups, rows),
        x.shape[0],
        BIASED=bias is not None,
        GROUPS=min(8, gpu.power_of_two(groups)),
    )
    return y


def why_not(x: Tensor, weight: tuple[Tensor, ...], bias: Tensor | None) -> str | None:
    """Few rows of 16 or 32 bits, without a gradient; on a GPU."""
    if torch.compiler.is_compiling():
        return "torch.compile makes its own"
    if torch.is_grad_enabled() and x.requires_grad:
        return "it has no gradient: use torch.no_grad()"
    if x.dtype not in gpu.DTYPES:
        return f"it takes 16 or 32 bits, not {x.dtype}"
    if not 0 < x.shape[1] <= _WIDEST:
        return f"a row of {x.shape[1]} numbers is wider than {_WIDEST}"
    if x.shape[0] > MOST_ROWS and preferred() == "auto":
        return f"for {x.shape[0]} rows, more than {MOST_ROWS}, a matrix product is faster"
    return gpu.why_not(x, *weight, bias)
