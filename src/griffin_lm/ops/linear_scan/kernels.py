"""The linear scan in Triton: h_t = a_t h_{t-1} + x_t, forwards or backwards in time.

A program owns CHANNELS neighbouring channels of one row and walks a stretch of time, ROWS steps at
a time. A thread owns two channels and all ROWS steps of them (VEC = 2 says so), hence the scan of a
tile is a chain of multiply-adds in registers, in the order of time, without shuffles; loads of the
next tiles are under way meanwhile (`num_stages`). Backwards in time, indices run backwards:
`reverse=True` of Triton's own scan gave wrong results (triton issue 4362).
"""

from typing import no_type_check

import triton
import triton.language as tl

from ..gpu.numbers import after, carried, kept, last_row


@triton.jit(do_not_specialize=["T", "chunk"])
@no_type_check
def scan(
    x_ptr: tl.tensor,
    a_ptr: tl.tensor,
    carry_ptr: tl.tensor,
    hs_ptr: tl.tensor,
    T: tl.tensor,
    R: tl.constexpr,
    chunk: tl.tensor,
    chunks: tl.tensor,
    REVERSE: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
    VEC: tl.constexpr,
    STAGES: tl.constexpr,
) -> None:
    """x, a, hs (B, T, R); carry (B, chunks, R): the state that each chunk begins with."""
    blocks = tl.cdiv(R, CHANNELS)
    piece = tl.program_id(0) // blocks  # of B * chunks
    d = (tl.program_id(0) % blocks) * CHANNELS + tl.arange(0, CHANNELS)
    d = tl.max_contiguous(d, VEC)
    inside = d < R
    b, first = (piece // chunks).to(tl.int64), (piece % chunks) * chunk
    row = tl.arange(0, ROWS)[:, None]
    h = tl.load(carry_ptr + piece.to(tl.int64) * R + d, mask=inside, other=0)
    for begin in tl.range(first, tl.minimum(first + chunk, T), ROWS, num_stages=STAGES):
        step = begin + row
        use = (step < tl.minimum(first + chunk, T)) & inside[None, :]
        if REVERSE:
            base, local = (b * T + T - 1 - begin) * R, d[None, :] - row * R
        else:
            base, local = (b * T + begin) * R, d[None, :] + row * R
        local = tl.max_contiguous(local, [1, VEC])
        x = tl.load(x_ptr + base + local, mask=use, other=0)
        a = tl.load(a_ptr + base + local, mask=use, other=1)
        x = tl.where(row == 0, carried(a, h[None, :], x), x)
        _, hs = tl.associative_scan((a, x), 0, after)
        h = last_row(hs, row, ROWS)
        tl.store(hs_ptr + base + local, hs, mask=use)


@triton.jit(do_not_specialize=["T", "chunk"])
@no_type_check
def ends(
    x_ptr: tl.tensor,
    a_ptr: tl.tensor,
    decay_ptr: tl.tensor,
    end_ptr: tl.tensor,
    T: tl.tensor,
    R: tl.constexpr,
    chunk: tl.tensor,
    chunks: tl.tensor,
    REVERSE: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
    VEC: tl.constexpr,
    STAGES: tl.constexpr,
) -> None:
    """What each chunk makes of a state: decay * state + end, both (B, chunks, R) fp32."""
    blocks = tl.cdiv(R, CHANNELS)
    piece = tl.program_id(0) // blocks
    d = (tl.program_id(0) % blocks) * CHANNELS + tl.arange(0, CHANNELS)
    d = tl.max_contiguous(d, VEC)
    inside = d < R
    b, first = (piece // chunks).to(tl.int64), (piece % chunks) * chunk
    row = tl.arange(0, ROWS)[:, None]
    decay, h = tl.full([CHANNELS], 1, tl.float32), tl.zeros([CHANNELS], tl.float32)
    for begin in tl.range(first, tl.minimum(first + chunk, T), ROWS, num_stages=STAGES):
        step = begin + row
        use = (step < tl.minimum(first + chunk, T)) & inside[None, :]
        if REVERSE:
            base, local = (b * T + T - 1 - begin) * R, d[None, :] - row * R
        else:
            base, local = (b * T + begin) * R, d[None, :] + row * R
        local = tl.max_contiguous(local, [1, VEC])
        x = tl.load(x_ptr + base + local, mask=use, other=0)
        a = tl.load(a_ptr + base + local, mask=use, other=1)
        x = tl.where(row == 0, carried(a, h[None, :], x), x)
        decays, hs = tl.associative_scan((a, x), 0, after)
        h = last_row(hs, row, ROWS)
        decay = kept(last_row(decays, row, ROWS), decay)
    at = piece.to(tl.int64) * R + d
    tl.store(decay_ptr + at, decay, mask=inside)
    tl.store(end_ptr + at, h, mask=inside)


@triton.jit(do_not_specialize=["chunks"])
@no_type_check
def link(
    decay_ptr: tl.tensor,
    end_ptr: tl.tensor,
    h0_ptr: tl.tensor,
    carry_ptr: tl.tensor,
    R: tl.constexpr,
    chunks: tl.tensor,
    CHANNELS: tl.constexpr,
) -> None:
    """From the chunks' ends to the states they begin with, carry (B, chunks, R); h0 (B, R)."""
    blocks = tl.cdiv(R, CHANNELS)
    b = (tl.program_id(0) // blocks).to(tl.int64)
    d = (tl.program_id(0) % blocks) * CHANNELS + tl.arange(0, CHANNELS)
    inside = d < R
    h = tl.load(h0_ptr + b * R + d, mask=inside, other=0)
    for c in tl.range(0, chunks, num_stages=4):
        at = (b * chunks + c) * R + d
        tl.store(carry_ptr + at, h, mask=inside)
        decay = tl.load(decay_ptr + at, mask=inside, other=1)
        end = tl.load(end_ptr + at, mask=inside, other=0)
        h = carried(decay, h, end)
