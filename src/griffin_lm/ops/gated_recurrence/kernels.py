"""From gates to the block's product in one pass over memory: gelu(y) h of the RG-LRU, and back.

Letters and numerics as in `rg_lru/kernels.py`; a program owns the same things here. States are not
written: going forward every EVERY-th is kept, in fp32, when there will be a gradient; going
backward a tile of EVERY steps makes its own states again from the one that it begins with, in the
forward kernel's order, so they have its bits. 10 bytes an element in bf16 forward and 18 backward,
and 4 / EVERY more in each for what is kept.
"""

from typing import no_type_check

import triton
import triton.language as tl

from ..gpu.numbers import (
    after,
    carried,
    exp_and_expm1,
    gelu,
    gelu_slope,
    kept,
    last_row,
    one_row_on,
    upturned,
)
from ..rg_lru.kernels import LEAST, decay_and_drive


@triton.jit(do_not_specialize=["T", "chunk"])
@no_type_check
def gated_states(
    x_ptr: tl.tensor,
    r_ptr: tl.tensor,
    i_ptr: tl.tensor,
    y_ptr: tl.tensor,
    rate_ptr: tl.tensor,
    starts_ptr: tl.tensor,
    count_ptr: tl.tensor,
    carry_ptr: tl.tensor,
    out_ptr: tl.tensor,
    last_ptr: tl.tensor,
    kept_ptr: tl.tensor,
    T: tl.tensor,
    R: tl.constexpr,
    chunk: tl.tensor,
    chunks: tl.tensor,
    WHOLE: tl.constexpr,
    KEEP: tl.constexpr,
    EVERY: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
    VEC: tl.constexpr,
    STAGES: tl.constexpr,
) -> None:
    """out (B, T, R) = gelu(y) h, given what the chunks begin with, carry (B, chunks, R).

    last (B, R): the state after count[b] steps (WHOLE: after all T); what came in where there are
    none. kept (B, ceil(T / EVERY), R), if KEEP: the state before each EVERY-th step.
    """
    blocks = tl.cdiv(R, CHANNELS)
    piece = tl.program_id(0) // blocks  # of B * chunks
    d = (tl.program_id(0) % blocks) * CHANNELS + tl.arange(0, CHANNELS)
    d = tl.max_contiguous(d, VEC)
    inside = d < R
    b, first = (piece // chunks).to(tl.int64), (piece % chunks) * chunk
    end = tl.minimum(first + chunk, T)
    row = tl.arange(0, ROWS)[:, None]
    rate = tl.load(rate_ptr + d, mask=inside, other=0)[None, :]
    h = tl.load(carry_ptr + piece.to(tl.int64) * R + d, mask=inside, other=0)
    count = T if WHOLE else tl.load(count_ptr + b).to(tl.int32)
    if first == 0 and count == 0:
        tl.store(last_ptr + b * R + d, h, mask=inside)
    if KEEP and first == 0:
        tl.store(kept_ptr + b * tl.cdiv(T, EVERY) * R + d, h, mask=inside)
    local = tl.max_contiguous(row * R + d[None, :], [1, VEC])
    for begin in tl.range(first, end, ROWS, num_stages=STAGES):
        use = (begin + row < end) & inside[None, :]
        base = (b * T + begin) * R
        x = tl.load(x_ptr + base + local, mask=use, other=0)
        r = tl.load(r_ptr + base + local, mask=use, other=0)
        i = tl.load(i_ptr + base + local, mask=use, other=0)
        y = tl.load(y_ptr + base + local, mask=use, other=0).to(tl.float32)
        begins = tl.load(starts_ptr + b * T + begin + row, mask=begin + row < end, other=0) != 0
        a, drive = decay_and_drive(x, r, i, rate, begins)
        a, drive = tl.where(use, a, 1.0), tl.where(use, drive, 0.0)
        drive = tl.where(row == 0, carried(a, h[None, :], drive), drive)
        _, hs = tl.associative_scan((a, drive), 0, after)
        h = last_row(hs, row, ROWS)
        tl.store(out_ptr + base + local, gelu(y) * hs, mask=use)
        here = use & (begin + row == count - 1)
        tl.store(last_ptr + b * R + d[None, :] + row * 0, hs, mask=here)
        if KEEP:
            tile = b * tl.cdiv(T, EVERY) + begin // EVERY + (row + 1) // EVERY
            whole = ((row + 1) % EVERY == 0) & (begin + row + 1 < T)
            tl.store(kept_ptr + tile * R + d[None, :], hs, mask=use & whole)


@triton.jit(do_not_specialize=["T", "chunk"])
@no_type_check
def gated_gradient_ends(
    r_ptr: tl.tensor,
    y_ptr: tl.tensor,
    rate_ptr: tl.tensor,
    starts_ptr: tl.tensor,
    count_ptr: tl.tensor,
    g_ptr: tl.tensor,
    g_last_ptr: tl.tensor,
    decay_ptr: tl.tensor,
    end_ptr: tl.tensor,
    T: tl.tensor,
    R: tl.constexpr,
    chunk: tl.tensor,
    chunks: tl.tensor,
    WHOLE: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
    VEC: tl.constexpr,
    STAGES: tl.constexpr,
) -> None:
    """Of P_t = a_t (g_t gelu(y_t) + P_{t+1}), what each chunk makes of the P that enters it.

    decay, end (B, chunks, R), the last chunk of time first. g (B, T, R) is the gradient at out,
    g_last (B, R) at the last state.
    """
    blocks = tl.cdiv(R, CHANNELS)
    piece = tl.program_id(0) // blocks
    d = (tl.program_id(0) % blocks) * CHANNELS + tl.arange(0, CHANNELS)
    d = tl.max_contiguous(d, VEC)
    inside = d < R
    b, first = (piece // chunks).to(tl.int64), (chunks - 1 - piece % chunks) * chunk
    end = tl.minimum(first + chunk, T)
    row = tl.arange(0, ROWS)[:, None]
    rate = tl.load(rate_ptr + d, mask=inside, other=0)[None, :]
    count = T if WHOLE else tl.load(count_ptr + b).to(tl.int32)
    g_last = tl.load(g_last_ptr + b * R + d, mask=inside, other=0)[None, :]
    whole, p = tl.full([CHANNELS], 1, tl.float32), tl.zeros([CHANNELS], tl.float32)
    local = tl.max_contiguous(d[None, :] - row * R, [1, VEC])
    tiles = tl.cdiv(end - first, ROWS)
    for tile in tl.range(0, tiles, num_stages=STAGES):
        latest = first + (tiles - tile) * ROWS - 1
        t = latest - row
        use = (t < end) & inside[None, :]
        base = (b * T + latest) * R
        r = tl.load(r_ptr + base + local, mask=use, other=0)
        y = tl.load(y_ptr + base + local, mask=use, other=0).to(tl.float32)
        g = tl.load(g_ptr + base + local, mask=use, other=0).to(tl.float32)
        begins = tl.load(starts_ptr + b * T + t, mask=t < end, other=0) != 0
        g = g * gelu(y) + tl.where(t == count - 1, g_last, 0.0)
        a, _ = exp_and_expm1(-tl.sigmoid(r.to(tl.float32)) * rate)
        a = tl.where(use, tl.where(begins, 0.0, a), 1.0)
        given = tl.where(use, kept(a, g), 0.0)
        given = tl.where(row == 0, carried(a, p[None, :], given), given)
        decays, ps = tl.associative_scan((a, given), 0, after)
        p = last_row(ps, row, ROWS)
        whole = kept(last_row(decays, row, ROWS), whole)
    own = piece.to(tl.int64) * R + d
    tl.store(decay_ptr + own, whole, mask=inside)
    tl.store(end_ptr + own, p, mask=inside)


@triton.jit(do_not_specialize=["T", "chunk"])
@no_type_check
def gated_gradient(
    x_ptr: tl.tensor,
    r_ptr: tl.tensor,
    i_ptr: tl.tensor,
    y_ptr: tl.tensor,
    rate_ptr: tl.tensor,
    starts_ptr: tl.tensor,
    count_ptr: tl.tensor,
    kept_ptr: tl.tensor,
    g_ptr: tl.tensor,
    g_last_ptr: tl.tensor,
    carry_ptr: tl.tensor,
    dx_ptr: tl.tensor,
    dr_ptr: tl.tensor,
    di_ptr: tl.tensor,
    dy_ptr: tl.tensor,
    d_rate_ptr: tl.tensor,
    d_h0_ptr: tl.tensor,
    T: tl.tensor,
    R: tl.constexpr,
    chunk: tl.tensor,
    chunks: tl.tensor,
    WHOLE: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
    VEC: tl.constexpr,
    STAGES: tl.constexpr,
) -> None:
    """Backwards in time, as `rg_lru/kernels.py: gradient`, and dy_t = g_t h_t gelu'(y_t).

    A tile is the ROWS = EVERY steps after a kept state, the last of them in row 0; for the states
    it is turned over, which costs nothing where a thread owns its columns. carry (B, chunks, R):
    the P that enters each chunk, the last chunk of time first. d_rate (B, chunks, R): partial sums.
    """
    blocks = tl.cdiv(R, CHANNELS)
    piece = tl.program_id(0) // blocks
    d = (tl.program_id(0) % blocks) * CHANNELS + tl.arange(0, CHANNELS)
    d = tl.max_contiguous(d, VEC)
    inside = d < R
    b, first = (piece // chunks).to(tl.int64), (chunks - 1 - piece % chunks) * chunk
    end = tl.minimum(first + chunk, T)
    row = tl.arange(0, ROWS)[:, None]
    rate = tl.load(rate_ptr + d, mask=inside, other=0)[None, :]
    own = piece.to(tl.int64) * R + d
    p = tl.load(carry_ptr + own, mask=inside, other=0)
    count = T if WHOLE else tl.load(count_ptr + b).to(tl.int32)
    g_last = tl.load(g_last_ptr + b * R + d, mask=inside, other=0)
    d_rate = tl.zeros([CHANNELS], tl.float32)
    local = tl.max_contiguous(d[None, :] - row * R, [1, VEC])
    tiles = tl.cdiv(end - first, ROWS)
    for tile in tl.range(0, tiles, num_stages=STAGES):
        begin = first + (tiles - 1 - tile) * ROWS
        t = begin + ROWS - 1 - row
        use = (t < end) & inside[None, :]
        base = (b * T + begin + ROWS - 1) * R
        x = tl.load(x_ptr + base + local, mask=use, other=0).to(tl.float32)
        r = tl.load(r_ptr + base + local, mask=use, other=0).to(tl.float32)
        i = tl.load(i_ptr + base + local, mask=use, other=0).to(tl.float32)
        y = tl.load(y_ptr + base + local, mask=use, other=0).to(tl.float32)
        g = tl.load(g_ptr + base + local, mask=use, other=0).to(tl.float32)
        begins = tl.load(starts_ptr + b * T + t, mask=t < end, other=0) != 0
        before_ptr = kept_ptr + (b * tl.cdiv(T, ROWS) + begin // ROWS) * R + d
        h = tl.load(before_ptr, mask=inside, other=0)
        r, i = tl.sigmoid(r), tl.sigmoid(i)
        a, e = exp_and_expm1(-r * rate)
        z = -e * (2 + e)
        m = tl.where(begins, 1.0, tl.sqrt(z))
        decay = tl.where(use, tl.where(begins, 0.0, a), 1.0)
        # the states once more, in the order of time
        forth, drive = upturned(decay, row, ROWS), upturned(m * (i * x), row, ROWS)
        drive = tl.where(row == 0, carried(forth, h[None, :], drive), drive)
        _, hs = tl.associative_scan((forth, drive), 0, after)
        before = upturned(one_row_on(hs, h, row, ROWS), row, ROWS)
        hs = upturned(hs, row, ROWS)
        tl.store(dy_ptr + base + local, g * hs * gelu_slope(y), mask=use)
        # the gradient, against it
        at_h = g * gelu(y) + tl.where(t == count - 1, g_last[None, :], 0.0)
        given = tl.where(use, kept(decay, at_h), 0.0)
        given = tl.where(row == 0, carried(decay, p[None, :], given), given)
        _, ps = tl.associative_scan((decay, given), 0, after)
        whole = at_h + one_row_on(ps, p, row, ROWS)
        p = last_row(ps, row, ROWS)
        dz = whole * (i * x) * tl.rsqrt(tl.maximum(4 * z, LEAST))
        d_log_a = tl.where(begins, 0.0, a * (whole * before) - 2 * a * a * dz)
        tl.store(dx_ptr + base + local, whole * m * i, mask=use)
        tl.store(dr_ptr + base + local, -rate * r * (1 - r) * d_log_a, mask=use)
        tl.store(di_ptr + base + local, i * (1 - i) * (whole * m * x), mask=use)
        d_rate += tl.sum(tl.where(use, -r * d_log_a, 0.0), axis=0)
    tl.store(d_rate_ptr + own, d_rate, mask=inside)
    if first == 0:
        tl.store(d_h0_ptr + b * R + d, p + tl.where(count == 0, g_last, 0.0), mask=inside)
