"""The RG-LRU in Triton: gates, decay and scan in one pass over memory, and its gradient.

Letters as in `definition.py`: r, i gates, a decay, m = sqrt(1 - a^2); drive = m i x. All is fp32 in
registers, whatever the inputs are; 1 - a^2 comes from expm1, and both of a and 1 - a^2 keep their
digits near a = 1:  e = expm1(log a),  a = 1 + e there,  1 - a^2 = -e (2 + e).

As in `linear_scan/kernels.py`, a program owns CHANNELS channels of a row and a stretch of time, a
thread all ROWS steps of its two channels. Sums over time stay with their program and are added up
in a fixed order afterwards: no atomics, the same bits every run.
"""

from typing import no_type_check

import triton
import triton.language as tl

from ..gpu.numbers import after, after_with_input, carried, exp_and_expm1, kept, last_row

# (2 * 1000)^-2: below it the slope 1 / (2 sqrt(z)) is that of MAX_SLOPE (reference.py); z = 1 - a^2
LEAST = tl.constexpr(1e-6)


@triton.jit
@no_type_check
def decay_and_drive(
    x: tl.tensor, r: tl.tensor, i: tl.tensor, rate: tl.tensor, begins: tl.tensor
) -> tuple:
    """The decay a and the drive of each step, of inputs and gates before their sigmoid."""
    a, e = exp_and_expm1(-tl.sigmoid(r.to(tl.float32)) * rate)
    a = tl.where(begins, 0.0, a)
    m = tl.where(begins, 1.0, tl.sqrt(-e * (2 + e)))
    return a, m * (tl.sigmoid(i.to(tl.float32)) * x.to(tl.float32))


@triton.jit(do_not_specialize=["T", "chunk"])
@no_type_check
def states(
    x_ptr: tl.tensor,
    r_ptr: tl.tensor,
    i_ptr: tl.tensor,
    rate_ptr: tl.tensor,
    starts_ptr: tl.tensor,
    carry_ptr: tl.tensor,
    decay_ptr: tl.tensor,
    out_ptr: tl.tensor,
    T: tl.tensor,
    R: tl.constexpr,
    chunk: tl.tensor,
    chunks: tl.tensor,
    ENDS: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
    VEC: tl.constexpr,
    STAGES: tl.constexpr,
) -> None:
    """All states, out (B, T, R) fp32, given those that the chunks begin with, carry (B, chunks, R).

    ENDS: instead what each chunk makes of a state, decay * state + out, both (B, chunks, R).
    """
    blocks = tl.cdiv(R, CHANNELS)
    piece = tl.program_id(0) // blocks  # of B * chunks
    d = (tl.program_id(0) % blocks) * CHANNELS + tl.arange(0, CHANNELS)
    d = tl.max_contiguous(d, VEC)
    inside = d < R
    b, first = (piece // chunks).to(tl.int64), (piece % chunks) * chunk
    last = tl.minimum(first + chunk, T)
    row = tl.arange(0, ROWS)[:, None]
    rate = tl.load(rate_ptr + d, mask=inside, other=0)[None, :]
    own = piece.to(tl.int64) * R + d
    if ENDS:
        whole, h = tl.full([CHANNELS], 1, tl.float32), tl.zeros([CHANNELS], tl.float32)
    else:
        h = tl.load(carry_ptr + own, mask=inside, other=0)
    local = tl.max_contiguous(row * R + d[None, :], [1, VEC])
    for begin in tl.range(first, last, ROWS, num_stages=STAGES):
        use = (begin + row < last) & inside[None, :]
        base = (b * T + begin) * R
        x = tl.load(x_ptr + base + local, mask=use, other=0)
        r = tl.load(r_ptr + base + local, mask=use, other=0)
        i = tl.load(i_ptr + base + local, mask=use, other=0)
        begins = tl.load(starts_ptr + b * T + begin + row, mask=begin + row < last, other=0) != 0
        a, drive = decay_and_drive(x, r, i, rate, begins)
        a, drive = tl.where(use, a, 1.0), tl.where(use, drive, 0.0)
        drive = tl.where(row == 0, carried(a, h[None, :], drive), drive)
        decays, hs = tl.associative_scan((a, drive), 0, after)
        h = last_row(hs, row, ROWS)
        if ENDS:
            whole = kept(last_row(decays, row, ROWS), whole)
        else:
            tl.store(out_ptr + base + local, hs, mask=use)
    if ENDS:
        tl.store(decay_ptr + own, whole, mask=inside)
        tl.store(out_ptr + own, h, mask=inside)


@triton.jit(do_not_specialize=["T", "chunk"])
@no_type_check
def gradient_ends(
    r_ptr: tl.tensor,
    rate_ptr: tl.tensor,
    starts_ptr: tl.tensor,
    g_ptr: tl.tensor,
    decay_ptr: tl.tensor,
    end_ptr: tl.tensor,
    T: tl.tensor,
    R: tl.constexpr,
    chunk: tl.tensor,
    chunks: tl.tensor,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
    VEC: tl.constexpr,
    STAGES: tl.constexpr,
) -> None:
    """Of P_t = a_t (g_t + P_{t+1}), what each chunk makes of the P that enters it from the right.

    Chunks count from the end of time; decay, end (B, chunks, R) as in `states`.
    """
    blocks = tl.cdiv(R, CHANNELS)
    piece = tl.program_id(0) // blocks
    d = (tl.program_id(0) % blocks) * CHANNELS + tl.arange(0, CHANNELS)
    d = tl.max_contiguous(d, VEC)
    inside = d < R
    b, first = (piece // chunks).to(tl.int64), (piece % chunks) * chunk
    last = tl.minimum(first + chunk, T)
    row = tl.arange(0, ROWS)[:, None]
    rate = tl.load(rate_ptr + d, mask=inside, other=0)[None, :]
    whole, p = tl.full([CHANNELS], 1, tl.float32), tl.zeros([CHANNELS], tl.float32)
    local = tl.max_contiguous(d[None, :] - row * R, [1, VEC])
    for begin in tl.range(first, last, ROWS, num_stages=STAGES):
        use = (begin + row < last) & inside[None, :]
        base = (b * T + T - 1 - begin) * R
        r = tl.load(r_ptr + base + local, mask=use, other=0)
        g = tl.load(g_ptr + base + local, mask=use, other=0)
        time = b * T + T - 1 - begin - row
        begins = tl.load(starts_ptr + time, mask=begin + row < last, other=0) != 0
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
def gradient(
    x_ptr: tl.tensor,
    r_ptr: tl.tensor,
    i_ptr: tl.tensor,
    rate_ptr: tl.tensor,
    starts_ptr: tl.tensor,
    h0_ptr: tl.tensor,
    hs_ptr: tl.tensor,
    g_ptr: tl.tensor,
    carry_ptr: tl.tensor,
    dx_ptr: tl.tensor,
    dr_ptr: tl.tensor,
    di_ptr: tl.tensor,
    d_rate_ptr: tl.tensor,
    d_h0_ptr: tl.tensor,
    T: tl.tensor,
    R: tl.constexpr,
    chunk: tl.tensor,
    chunks: tl.tensor,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
    VEC: tl.constexpr,
    STAGES: tl.constexpr,
) -> None:
    """Backwards in time, with G_t the whole gradient at h_t and P_t = a_t G_t what goes on to t-1.

        G_t = g_t + P_{t+1};  da = G_t h_{t-1};  dm = G_t i x;  dz = dm / (2 sqrt(z)), bounded
        d(log a) = a da - 2 a^2 dz;  dr_logit = -rate r (1 - r) d(log a);  dx = G_t m i, ...

    At a start nothing reaches a and m. carry (B, chunks, R): the P that enters each chunk.
    d_rate (B, chunks, R): a partial sum of each program.
    """
    blocks = tl.cdiv(R, CHANNELS)
    piece = tl.program_id(0) // blocks
    d = (tl.program_id(0) % blocks) * CHANNELS + tl.arange(0, CHANNELS)
    d = tl.max_contiguous(d, VEC)
    inside = d < R
    b, first = (piece // chunks).to(tl.int64), (piece % chunks) * chunk
    last = tl.minimum(first + chunk, T)
    row = tl.arange(0, ROWS)[:, None]
    rate = tl.load(rate_ptr + d, mask=inside, other=0)[None, :]
    own = piece.to(tl.int64) * R + d
    p = tl.load(carry_ptr + own, mask=inside, other=0)
    h0 = tl.load(h0_ptr + b * R + d, mask=inside, other=0)[None, :]
    d_rate = tl.zeros([CHANNELS], tl.float32)
    local = tl.max_contiguous(d[None, :] - row * R, [1, VEC])
    for begin in tl.range(first, last, ROWS, num_stages=STAGES):
        use = (begin + row < last) & inside[None, :]
        base = (b * T + T - 1 - begin) * R
        earlier = T - 1 - begin - row > 0  # there is a step before
        x = tl.load(x_ptr + base + local, mask=use, other=0).to(tl.float32)
        r = tl.load(r_ptr + base + local, mask=use, other=0).to(tl.float32)
        i = tl.load(i_ptr + base + local, mask=use, other=0).to(tl.float32)
        g = tl.load(g_ptr + base + local, mask=use, other=0)
        before = tl.load(hs_ptr + base - R + local, mask=use & earlier, other=0)
        before = tl.where(earlier, before, h0)
        time = b * T + T - 1 - begin - row
        begins = tl.load(starts_ptr + time, mask=begin + row < last, other=0) != 0
        r, i = tl.sigmoid(r), tl.sigmoid(i)
        a, e = exp_and_expm1(-r * rate)
        z = -e * (2 + e)
        decay = tl.where(use, tl.where(begins, 0.0, a), 1.0)
        given = tl.where(use, kept(decay, g), 0.0)
        given = tl.where(row == 0, carried(decay, p[None, :], given), given)
        one, none = tl.full([ROWS, CHANNELS], 1, tl.float32), tl.zeros_like(given)
        _, ps, _, entering = tl.associative_scan((decay, given, one, none), 0, after_with_input)
        whole = g + tl.where(row == 0, p[None, :], entering)
        p = last_row(ps, row, ROWS)
        m = tl.where(begins, 1.0, tl.sqrt(z))
        dz = whole * (i * x) * tl.rsqrt(tl.maximum(4 * z, LEAST))
        d_log_a = tl.where(begins, 0.0, a * (whole * before) - 2 * a * a * dz)
        tl.store(dx_ptr + base + local, whole * m * i, mask=use)
        tl.store(dr_ptr + base + local, -rate * r * (1 - r) * d_log_a, mask=use)
        tl.store(di_ptr + base + local, i * (1 - i) * (whole * m * x), mask=use)
        d_rate += tl.sum(tl.where(use, -r * d_log_a, 0.0), axis=0)
    tl.store(d_rate_ptr + own, d_rate, mask=inside)
    if piece % chunks == chunks - 1:
        tl.store(d_h0_ptr + b * R + d, p, mask=inside)
