"""act(gate) * x in Triton, and its gradient: read once, computed in fp32, rounded once."""

from typing import no_type_check

import triton
import triton.language as tl

from ..gpu.numbers import gelu, gelu_slope, silu, silu_slope


@triton.jit
@no_type_check
def product(
    gate_ptr: tl.tensor,
    x_ptr: tl.tensor,
    out_ptr: tl.tensor,
    size: tl.tensor,
    GELU: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """out of the gate's dtype; `size` numbers in each."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    gate = tl.load(gate_ptr + at, mask=at < size, other=0).to(tl.float32)
    x = tl.load(x_ptr + at, mask=at < size, other=0).to(tl.float32)
    opened = gelu(gate) if GELU else silu(gate)
    tl.store(out_ptr + at, opened * x, mask=at < size)


@triton.jit
@no_type_check
def product_gradient(
    gate_ptr: tl.tensor,
    x_ptr: tl.tensor,
    g_ptr: tl.tensor,
    at_gate_ptr: tl.tensor,
    at_x_ptr: tl.tensor,
    size: tl.tensor,
    GELU: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """At gate and at x, each of its own dtype, given g at the product; act(gate) is made again."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    gate = tl.load(gate_ptr + at, mask=inside, other=0).to(tl.float32)
    x = tl.load(x_ptr + at, mask=inside, other=0).to(tl.float32)
    g = tl.load(g_ptr + at, mask=inside, other=0).to(tl.float32)
    opened = gelu(gate) if GELU else silu(gate)
    slope = gelu_slope(gate) if GELU else silu_slope(gate)
    tl.store(at_gate_ptr + at, g * x * slope, mask=inside)
    tl.store(at_x_ptr + at, g * opened, mask=inside)
