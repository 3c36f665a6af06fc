"""Device functions of one number each, in fp32, and the scan's combination of two steps.

Only Triton's core operations: its libdevice is missing in the interpreter, and what runs on a GPU
shall be what was tested there.
"""

from typing import no_type_check

import triton
import triton.language as tl


# `no_type_check`: the arguments are Triton's, the shape checker of our tests would not know them
@triton.jit
@no_type_check
def exp_and_expm1(x: tl.tensor) -> tuple:
    """exp(x) and exp(x) - 1 for x <= 0, both to the last digits, where either has few left alone.

    Down to -1/2 by the Taylor series of the latter, its ninth term below 2^-24 of the sum; beyond,
    by exp itself.
    """
    series = 1 + x * (1 / 8)
    series = 1 + x * (1 / 7) * series
    series = 1 + x * (1 / 6) * series
    series = 1 + x * (1 / 5) * series
    series = 1 + x * (1 / 4) * series
    series = 1 + x * (1 / 3) * series
    series = 1 + x * (1 / 2) * series
    whole, near = tl.exp(x), x > -0.5
    less = tl.where(near, x * series, whole - 1)
    return tl.where(near, 1 + less, whole), less


@triton.jit
@no_type_check
def tanh(x: tl.tensor) -> tl.tensor:
    """Of any x; the larger |x|, the nearer to 1, never NaN. 1 - 2 / (exp(2 x) + 1) would cancel."""
    _, fall = exp_and_expm1(-2 * tl.abs(x))
    size = -fall / (2 + fall)
    return tl.where(x < 0, -size, size)


@triton.jit
@no_type_check
def gelu(y: tl.tensor) -> tl.tensor:
    """GELU by tanh (Hendrycks and Gimpel 2016): y (1 + tanh u) / 2 = y sigmoid(2 u)."""
    u = 0.7978845608028654 * (y + 0.044715 * y * y * y)  # sqrt(2 / pi)
    return y * tl.sigmoid(2 * u)


@triton.jit
@no_type_check
def gelu_slope(y: tl.tensor) -> tl.tensor:
    """The derivative of `gelu`."""
    u = 0.7978845608028654 * (y + 0.044715 * y * y * y)
    du = 0.7978845608028654 * (1 + 3 * 0.044715 * y * y)
    s = tl.sigmoid(2 * u)
    return s + y * s * tl.sigmoid(-2 * u) * 2 * du


@triton.jit
@no_type_check
def silu(y: tl.tensor) -> tl.tensor:
    """y sigmoid(y)."""
    return y * tl.sigmoid(y)


@triton.jit
@no_type_check
def silu_slope(y: tl.tensor) -> tl.tensor:
    """The derivative of `silu`."""
    s = tl.sigmoid(y)
    return s + y * s * tl.sigmoid(-y)


@triton.jit
@no_type_check
def carried(a: tl.tensor, h: tl.tensor, x: tl.tensor) -> tl.tensor:
    """a h + x; x alone where a is 0: selected, since 0 * inf would be NaN."""
    return tl.where(a == 0, x, tl.fma(a, h, x))


@triton.jit
@no_type_check
def kept(a: tl.tensor, before: tl.tensor) -> tl.tensor:
    """a * before; 0 where a is 0, whatever `before` is."""
    return tl.where(a == 0, 0.0, a * before)


@triton.jit
@no_type_check
def after(a1: tl.tensor, h1: tl.tensor, a2: tl.tensor, h2: tl.tensor) -> tuple:
    """Two steps h -> a h + x as one, the first first."""
    return kept(a2, a1), carried(a2, h1, h2)


@triton.jit
@no_type_check
def after_with_input(
    a1: tl.tensor,
    p1: tl.tensor,
    a1_but_last: tl.tensor,
    p1_but_last: tl.tensor,
    a2: tl.tensor,
    p2: tl.tensor,
    a2_but_last: tl.tensor,
    p2_but_last: tl.tensor,
) -> tuple:
    """As `after`, which also keeps what all steps but the last make: what enters the last one.

    Of a single step that is the identity, (1, 0).
    """
    a, p = kept(a2, a1), carried(a2, p1, p2)
    return a, p, kept(a2_but_last, a1), carried(a2_but_last, p1, p2_but_last)


@triton.jit
@no_type_check
def picked_row(tile: tl.tensor, row: tl.tensor, index: tl.constexpr) -> tl.tensor:
    """A row of a tile of fp32, to the bit: as whole numbers, to which 0 adds nothing.

    Where a thread owns a whole column the compiler leaves a register's name of it.
    """
    bits = tl.where(row == index, tile.to(tl.int32, bitcast=True), 0)
    return tl.sum(bits, axis=0).to(tl.float32, bitcast=True)


@triton.jit
@no_type_check
def last_row(tile: tl.tensor, row: tl.tensor, rows: tl.constexpr) -> tl.tensor:
    """The last row of a tile."""
    return picked_row(tile, row, rows - 1)


@triton.jit
@no_type_check
def upturned(tile: tl.tensor, row: tl.tensor, rows: tl.constexpr) -> tl.tensor:
    """The rows of a tile, the last first."""
    out = tile
    for index in tl.static_range(rows):
        out = tl.where(row == index, picked_row(tile, row, rows - 1 - index)[None, :], out)
    return out


@triton.jit
@no_type_check
def one_row_on(tile: tl.tensor, first: tl.tensor, row: tl.tensor, rows: tl.constexpr) -> tl.tensor:
    """`first`, then all rows of a tile but the last."""
    out = tl.where(row == 0, first[None, :], tile)
    for index in tl.static_range(1, rows):
        out = tl.where(row == index, picked_row(tile, row, index - 1)[None, :], out)
    return out
