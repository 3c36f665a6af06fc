"""The conv and both gates' block-diagonal maps in one kernel, and what comes back through them.

A program owns BLOCK_M tokens and BLOCK_O outputs of both gates of one head. It makes the conv of
its tokens BLOCK_I channels at a time, in fp32, rounded once as the conv alone rounds it, and
multiplies it where it is: the inputs are read, conv and gates are written. Programs that share
tokens and a head make the same conv; the first of them writes it. Letters as in `causal_conv`.
"""

from typing import no_type_check

import triton
import triton.language as tl

from ..causal_conv.kernels import input_at


@triton.jit(do_not_specialize=["M", "T"])
@no_type_check
def conv_gates(
    u_ptr: tl.tensor,
    past_ptr: tl.tensor,
    w_ptr: tl.tensor,
    bias_ptr: tl.tensor,
    position_ptr: tl.tensor,
    a_ptr: tl.tensor,
    a_bias_ptr: tl.tensor,
    x_ptr: tl.tensor,
    x_bias_ptr: tl.tensor,
    out_ptr: tl.tensor,
    r_ptr: tl.tensor,
    i_ptr: tl.tensor,
    M: tl.tensor,
    T: tl.tensor,
    H: tl.tensor,
    inputs: tl.tensor,
    outputs: tl.tensor,
    TAPS: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_I: tl.constexpr,
    BLOCK_O: tl.constexpr,
) -> None:
    """out (M, H I), r and i (M, H O) of u (M, H I), M = B T; a, x (H, I, O), biases (H, O).

    WIDE: operands are multiplied in fp32, as in `linear/kernels.py`.
    """
    columns, R = tl.cdiv(outputs, BLOCK_O), H * inputs
    h, column = tl.program_id(1) // columns, tl.program_id(1) % columns
    m = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)[:, None]
    o = (column * BLOCK_O + tl.arange(0, BLOCK_O))[None, :]
    b = m // T
    t = m - b * T
    position = tl.load(position_ptr + m, mask=m < M, other=0)
    mine = tl.full([1, BLOCK_I], column, tl.int32) == 0
    r = tl.zeros([BLOCK_M, BLOCK_O], tl.float32)
    i = tl.zeros([BLOCK_M, BLOCK_O], tl.float32)
    # one stage: with taps of the next tiles under way a block would need 353 KiB
    for begin in tl.range(0, inputs, BLOCK_I, num_stages=1):
        across, down = (
            begin + tl.arange(0, BLOCK_I)[None, :],
            begin + tl.arange(0, BLOCK_I)[:, None],
        )
        d, known = h * inputs + across, across < inputs
        use = (m < M) & known
        mixed = tl.load(bias_ptr + d, mask=known, other=0).to(tl.float32)
        for s in tl.static_range(TAPS):
            w = tl.load(w_ptr + (TAPS - 1 - s) * R + d, mask=known, other=0).to(tl.float32)
            mixed += w * input_at(u_ptr, past_ptr, b, t - s, d, use & (position >= s), T, R, TAPS)
        mixed = mixed.to(out_ptr.dtype.element_ty)
        tl.store(out_ptr + m * R + d, mixed, mask=use & mine)
        at = (h * inputs + down) * outputs + o
        inside = (down < inputs) & (o < outputs)
        a, x = tl.load(a_ptr + at, mask=inside, other=0), tl.load(x_ptr + at, mask=inside, other=0)
        if WIDE:
            wide = mixed.to(tl.float32)
            r = tl.dot(wide, a.to(tl.float32), r, input_precision="ieee")
            i = tl.dot(wide, x.to(tl.float32), i, input_precision="ieee")
        else:
            r, i = tl.dot(mixed, a, r), tl.dot(mixed, x, i)
    there = o < outputs
    r += tl.load(a_bias_ptr + h * outputs + o, mask=there, other=0).to(tl.float32)
    i += tl.load(x_bias_ptr + h * outputs + o, mask=there, other=0).to(tl.float32)
    to = (m * H + h) * outputs + o
    tl.store(r_ptr + to, r, mask=(m < M) & there)
    tl.store(i_ptr + to, i, mask=(m < M) & there)


@triton.jit(do_not_specialize=["M"])
@no_type_check
def gradient_at_conv(
    a_ptr: tl.tensor,
    x_ptr: tl.tensor,
    g_ptr: tl.tensor,
    g_r_ptr: tl.tensor,
    g_i_ptr: tl.tensor,
    total_ptr: tl.tensor,
    M: tl.tensor,
    H: tl.tensor,
    inputs: tl.tensor,
    outputs: tl.tensor,
    WIDE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_I: tl.constexpr,
    BLOCK_O: tl.constexpr,
) -> None:
    """total (M, H I) = g + g_r a^T + g_i x^T: all that reaches the conv's output, rounded once."""
    columns = tl.cdiv(inputs, BLOCK_I)
    h = tl.program_id(1) // columns
    m = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)[:, None]
    k = ((tl.program_id(1) % columns) * BLOCK_I + tl.arange(0, BLOCK_I))[None, :]
    to = (m * H + h) * inputs + k
    use = (m < M) & (k < inputs)
    total = tl.load(g_ptr + to, mask=use, other=0).to(tl.float32)
    for begin in tl.range(0, outputs, BLOCK_O):
        across, down = (
            begin + tl.arange(0, BLOCK_O)[None, :],
            begin + tl.arange(0, BLOCK_O)[:, None],
        )
        of, given = (m * H + h) * outputs + across, (m < M) & (across < outputs)
        g_r = tl.load(g_r_ptr + of, mask=given, other=0)
        g_i = tl.load(g_i_ptr + of, mask=given, other=0)
        at, inside = (h * inputs + k) * outputs + down, (down < outputs) & (k < inputs)
        a, x = tl.load(a_ptr + at, mask=inside, other=0), tl.load(x_ptr + at, mask=inside, other=0)
        if WIDE:
            total = tl.dot(g_r.to(tl.float32), a.to(tl.float32), total, input_precision="ieee")
            total = tl.dot(g_i.to(tl.float32), x.to(tl.float32), total, input_precision="ieee")
        else:
            total = tl.dot(g_i, x, tl.dot(g_r, a, total))
    tl.store(total_ptr + to, total, mask=use)
