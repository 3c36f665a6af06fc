"""The block-diagonal linear map in Triton: small matrix products side by side, sums in fp32."""

from typing import no_type_check

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["M"])
@no_type_check
def block_linear(
    x_ptr: tl.tensor,
    w_ptr: tl.tensor,
    b_ptr: tl.tensor,
    y_ptr: tl.tensor,
    M: tl.tensor,
    H: tl.tensor,
    inputs: tl.tensor,
    outputs: tl.tensor,
    w_input: tl.tensor,
    w_output: tl.tensor,
    BIASED: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_I: tl.constexpr,
    BLOCK_O: tl.constexpr,
) -> None:
    """y (M, H O) of x (M, H I); w (H, I, O) with these strides of inputs and outputs, b (H, O).

    WIDE: operands are multiplied in fp32, not as tf32; in the interpreter all are, since it takes
    the bits of bf16 for whole numbers.
    """
    columns = tl.cdiv(outputs, BLOCK_O)
    h = tl.program_id(1) // columns
    m = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)[:, None]
    o = ((tl.program_id(1) % columns) * BLOCK_O + tl.arange(0, BLOCK_O))[None, :]
    total = tl.zeros([BLOCK_M, BLOCK_O], tl.float32)
    for begin in tl.range(0, inputs, BLOCK_I):
        down, across = (
            begin + tl.arange(0, BLOCK_I)[None, :],
            begin + tl.arange(0, BLOCK_I)[:, None],
        )
        x = tl.load(x_ptr + (m * H + h) * inputs + down, mask=(m < M) & (down < inputs), other=0)
        at = h * inputs * outputs + across * w_input + o * w_output
        w = tl.load(w_ptr + at, mask=(across < inputs) & (o < outputs), other=0)
        if WIDE:
            x, w = x.to(tl.float32), w.to(tl.float32)
            total = tl.dot(x, w, total, input_precision="ieee")
        else:
            total = tl.dot(x, w, total)
    if BIASED:
        total += tl.load(b_ptr + h * outputs + o, mask=o < outputs, other=0).to(tl.float32)
    tl.store(y_ptr + (m * H + h) * outputs + o, total, mask=(m < M) & (o < outputs))
