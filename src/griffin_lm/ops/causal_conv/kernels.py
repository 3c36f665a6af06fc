"""The causal convolution in Triton, and its gradients; fp32 in registers, rounded once.

Letters: C taps; shift s of tap C-1-s, which reaches token t only where position[t] >= s. Time that
is negative lies in `past` (B, C-1, R). A program owns a tile of ROWS steps and CHANNELS channels;
the C reads of an input come out of the cache.
"""

from typing import no_type_check

import triton
import triton.language as tl


@triton.jit
@no_type_check
def input_at(
    x_ptr: tl.tensor,
    past_ptr: tl.tensor,
    b: tl.tensor,
    t: tl.tensor,
    d: tl.tensor,
    use: tl.tensor,
    T: tl.tensor,
    R: tl.tensor,
    TAPS: tl.constexpr,
) -> tl.tensor:
    """The inputs at times t (ROWS, 1), fp32; 0 where not `use`."""
    x = tl.load(x_ptr + (b * T + t) * R + d, mask=use & (t >= 0), other=0).to(tl.float32)
    at = (b * (TAPS - 1) + TAPS - 1 + t) * R + d
    return x + tl.load(past_ptr + at, mask=use & (t < 0), other=0).to(tl.float32)


@triton.jit(do_not_specialize=["T"])
@no_type_check
def conv(
    x_ptr: tl.tensor,
    past_ptr: tl.tensor,
    w_ptr: tl.tensor,
    bias_ptr: tl.tensor,
    position_ptr: tl.tensor,
    out_ptr: tl.tensor,
    T: tl.tensor,
    R: tl.tensor,
    TAPS: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
) -> None:
    """out (B, T, R) of x (B, T, R), past (B, C-1, R), w (C, R), bias (R), position (B, T)."""
    blocks, tiles = tl.cdiv(R, CHANNELS), tl.cdiv(T, ROWS)
    d = ((tl.program_id(0) % blocks) * CHANNELS + tl.arange(0, CHANNELS))[None, :]
    piece = tl.program_id(0) // blocks
    b = (piece // tiles).to(tl.int64)
    t = ((piece % tiles) * ROWS + tl.arange(0, ROWS))[:, None]
    use = (t < T) & (d < R)
    position = tl.load(position_ptr + b * T + t, mask=t < T, other=0)
    out = tl.load(bias_ptr + d, mask=d < R, other=0).to(tl.float32)
    for s in tl.static_range(TAPS):
        w = tl.load(w_ptr + (TAPS - 1 - s) * R + d, mask=d < R, other=0).to(tl.float32)
        out += w * input_at(x_ptr, past_ptr, b, t - s, d, use & (position >= s), T, R, TAPS)
    tl.store(out_ptr + (b * T + t) * R + d, out, mask=use)


@triton.jit(do_not_specialize=["T"])
@no_type_check
def gradient_at_inputs(
    w_ptr: tl.tensor,
    position_ptr: tl.tensor,
    g_ptr: tl.tensor,
    dx_ptr: tl.tensor,
    d_past_ptr: tl.tensor,
    T: tl.tensor,
    R: tl.tensor,
    TAPS: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
) -> None:
    """dx_t = sum_s w[C-1-s] g_{t+s} where position_{t+s} >= s; so also at the past, t < 0."""
    blocks, tiles = tl.cdiv(R, CHANNELS), tl.cdiv(T + TAPS - 1, ROWS)
    d = ((tl.program_id(0) % blocks) * CHANNELS + tl.arange(0, CHANNELS))[None, :]
    piece = tl.program_id(0) // blocks
    b = (piece // tiles).to(tl.int64)
    t = ((piece % tiles) * ROWS + tl.arange(0, ROWS) - (TAPS - 1))[:, None]
    total = tl.zeros([ROWS, CHANNELS], tl.float32)
    for s in tl.static_range(TAPS):
        later = t + s
        there = (later >= 0) & (later < T)
        position = tl.load(position_ptr + b * T + later, mask=there, other=0)
        use = there & (position >= s) & (d < R)
        w = tl.load(w_ptr + (TAPS - 1 - s) * R + d, mask=d < R, other=0).to(tl.float32)
        g = tl.load(g_ptr + (b * T + later) * R + d, mask=use, other=0).to(tl.float32)
        total += w * g
    tl.store(dx_ptr + (b * T + t) * R + d, total, mask=(t >= 0) & (t < T) & (d < R))
    at = (b * (TAPS - 1) + TAPS - 1 + t) * R + d
    tl.store(d_past_ptr + at, total, mask=(t < 0) & (d < R))


@triton.jit(do_not_specialize=["T", "B"])
@no_type_check
def gradient_at_weights(
    x_ptr: tl.tensor,
    past_ptr: tl.tensor,
    position_ptr: tl.tensor,
    g_ptr: tl.tensor,
    d_w_ptr: tl.tensor,
    B: tl.tensor,
    T: tl.tensor,
    R: tl.tensor,
    parts: tl.tensor,
    TAPS: tl.constexpr,
    SUMS: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
) -> None:
    """d_w (parts, C + 1, R): what the tiles of each part add to w, and at C to the bias.

    A part takes every parts-th tile; SUMS is a power of two above C.
    """
    blocks, tiles = tl.cdiv(R, CHANNELS), tl.cdiv(T, ROWS)
    d = ((tl.program_id(0) % blocks) * CHANNELS + tl.arange(0, CHANNELS))[None, :]
    part = tl.program_id(0) // blocks
    tap = tl.arange(0, SUMS)[:, None]
    sums = tl.zeros([SUMS, CHANNELS], tl.float32)
    for piece in range(part, B * tiles, parts):
        b = tl.cast(piece // tiles, tl.int64)
        t = ((piece % tiles) * ROWS + tl.arange(0, ROWS))[:, None]
        use = (t < T) & (d < R)
        position = tl.load(position_ptr + b * T + t, mask=t < T, other=0)
        g = tl.load(g_ptr + (b * T + t) * R + d, mask=use, other=0).to(tl.float32)
        sums = tl.where(tap == TAPS, sums + tl.sum(g, axis=0)[None, :], sums)
        for s in tl.static_range(TAPS):
            x = input_at(x_ptr, past_ptr, b, t - s, d, use & (position >= s), T, R, TAPS)
            more = tl.sum(tl.where(position >= s, g * x, 0.0), axis=0)
            sums = tl.where(tap == TAPS - 1 - s, sums + more[None, :], sums)
    at = (tl.cast(part, tl.int64) * (TAPS + 1) + tap) * R + d
    tl.store(d_w_ptr + at, sums, mask=(tap <= TAPS) & (d < R))
