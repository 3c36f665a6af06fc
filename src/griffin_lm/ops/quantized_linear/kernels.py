"""Products of few rows with weights of 8 and 4 bits in Triton, for a decode step.

Activations are rounded to int8, one scale a row, as the definition says; sums of products of whole
numbers are exact in int32. With 4 bits a group of 32 has its own scale, so its sum is exact, and
groups are added up in fp32.

The rows of x are neighbouring programs, so a weight comes from memory once and then from the cache.

Letters: M rows of x, K its width, N rows of the weight; P panels of 16 rows, G groups of 32.
"""

from typing import no_type_check

import triton
import triton.language as tl


@triton.jit
@no_type_check
def quantize(
    x_ptr: tl.tensor,
    q_ptr: tl.tensor,
    scale_ptr: tl.tensor,
    K: tl.tensor,
    filled: tl.tensor,
    BLOCK: tl.constexpr,
) -> None:
    """q (M, filled) int8 of x (M, K), zeros behind; scale (M) = max |x| / 127; ties to even."""
    m = tl.program_id(0).to(tl.int64)
    k = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + m * K + k, mask=k < K, other=0).to(tl.float32)
    largest = tl.max(tl.abs(x), axis=0)
    inverse = tl.where(largest > 0, tl.div_rn(127.0, tl.where(largest > 0, largest, 1.0)), 0.0)
    steps = x * inverse
    whole = tl.floor(steps)
    rest = steps - whole  # exact: both are small multiples of the last digit of `steps`
    odd = whole - 2 * tl.floor(whole / 2)
    up = (rest > 0.5) | ((rest == 0.5) & (odd > 0))
    q = tl.where(up, whole + 1, whole)
    tl.store(q_ptr + m * filled + k, q.to(tl.int8), mask=k < filled)
    tl.store(scale_ptr + m, tl.div_rn(largest, 127.0))


@triton.jit
@no_type_check
def int8_rows(
    q_ptr: tl.tensor,
    q_scale_ptr: tl.tensor,
    w_ptr: tl.tensor,
    scale_ptr: tl.tensor,
    bias_ptr: tl.tensor,
    y_ptr: tl.tensor,
    K: tl.tensor,
    N: tl.tensor,
    M: tl.tensor,
    BIASED: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """y (M, N) of q (M, K) and w (N, K), both int8; ROWS rows of w and one of q a program."""
    m = (tl.program_id(0) % M).to(tl.int64)
    n = (tl.program_id(0) // M) * ROWS + tl.arange(0, ROWS)
    total = tl.zeros([ROWS, BLOCK], tl.int32)
    for begin in tl.range(0, K, BLOCK):
        k = begin + tl.arange(0, BLOCK)
        q = tl.load(q_ptr + m * K + k, mask=k < K, other=0).to(tl.int32)
        at = n.to(tl.int64)[:, None] * K + k[None, :]
        w = tl.load(w_ptr + at, mask=(n < N)[:, None] & (k < K)[None, :], other=0).to(tl.int32)
        total += w * q[None, :]
    whole = tl.sum(total, axis=1).to(tl.float32)
    scale = tl.load(scale_ptr + n, mask=n < N, other=0) * tl.load(q_scale_ptr + m)
    y = whole * scale
    if BIASED:
        y += tl.load(bias_ptr + n, mask=n < N, other=0).to(tl.float32)
    tl.store(y_ptr + m * N + n, y, mask=n < N)


@triton.jit
@no_type_check
def int4_panels(
    q_ptr: tl.tensor,
    q_scale_ptr: tl.tensor,
    nibbles_ptr: tl.tensor,
    scale_ptr: tl.tensor,
    bias_ptr: tl.tensor,
    y_ptr: tl.tensor,
    groups: tl.tensor,
    N: tl.tensor,
    M: tl.tensor,
    BIASED: tl.constexpr,
    GROUPS: tl.constexpr,
) -> None:
    """y (M, N) of q (M, 32 G) int8 and a panel's nibbles (G, 4, 16, 4); a panel, a row a program.

    Byte [g, r, i, j] holds of row i weight 4 r + j of the group low, weight 16 + 4 r + j high.
    """
    m, p = (tl.program_id(0) % M).to(tl.int64), (tl.program_id(0) // M).to(tl.int64)
    byte = tl.arange(0, 256)  # of a group: r, i, j from the slowest to the fastest
    low = (byte // 64) * 4 + byte % 4  # the weight that its low nibble is
    n = tl.arange(0, 16)
    total = tl.zeros([16], tl.float32)
    for begin in tl.range(0, groups, GROUPS):
        g = begin + tl.arange(0, GROUPS)
        use = (g < groups)[:, None]
        at = ((p * groups + g) * 256)[:, None] + byte[None, :]
        packed = tl.load(nibbles_ptr + at, mask=use, other=0x88).to(tl.int32)
        column = m * groups * 32 + (g * 32)[:, None] + low[None, :]
        near = tl.load(q_ptr + column, mask=use, other=0).to(tl.int32)
        far = tl.load(q_ptr + column + 16, mask=use, other=0).to(tl.int32)
        both = ((packed & 15) - 8) * near + ((packed >> 4) - 8) * far
        both = tl.reshape(both, [GROUPS, 4, 16, 4])
        of_group = tl.sum(tl.sum(both, axis=3), axis=1)  # (GROUPS, 16), exact
        at_scale = ((p * groups + g) * 16)[:, None] + n[None, :]
        scale = tl.load(scale_ptr + at_scale, mask=use, other=0).to(tl.float32)
        total += tl.sum(of_group.to(tl.float32) * scale, axis=0)
    y = total * tl.load(q_scale_ptr + m)
    row = p * 16 + n
    if BIASED:
        y += tl.load(bias_ptr + row, mask=row < N, other=0).to(tl.float32)
    tl.store(y_ptr + m * N + row, y, mask=row < N)
