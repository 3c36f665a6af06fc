"""RMSNorm in Triton: a program reads a row once; fp32 in registers."""

from typing import no_type_check

import triton
import triton.language as tl


@triton.jit
@no_type_check
def norm(
    x_ptr: tl.tensor,
    added_ptr: tl.tensor,
    scale_ptr: tl.tensor,
    sum_ptr: tl.tensor,
    out_ptr: tl.tensor,
    root_ptr: tl.tensor,
    W: tl.tensor,
    eps: tl.tensor,
    ADDS: tl.constexpr,
    OFFSET: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """out (N, W) of x (N, W), and root (N) = 1 / sqrt(mean(x^2) + eps), fp32.

    ADDS: x + added takes the place of x, and is written to sum, all in x's dtype.
    """
    n = tl.program_id(0).to(tl.int64)
    d = tl.arange(0, BLOCK)
    inside = d < W
    x = tl.load(x_ptr + n * W + d, mask=inside, other=0)
    kind = x.dtype
    if ADDS:
        added = tl.load(added_ptr + n * W + d, mask=inside, other=0)
        x = (x.to(tl.float32) + added.to(tl.float32)).to(kind)
        tl.store(sum_ptr + n * W + d, x, mask=inside)
    wide = x.to(tl.float32)
    root = 1 / tl.sqrt_rn(tl.sum(wide * wide, axis=0) / W + eps)
    tl.store(root_ptr + n, root)
    scale = tl.load(scale_ptr + d, mask=inside, other=0)
    if OFFSET:
        out = (wide * root * (1 + scale.to(tl.float32))).to(kind)
    else:  # the quotient is rounded before the product, as Llama does
        out = ((wide * root).to(kind).to(tl.float32) * scale.to(kind).to(tl.float32)).to(kind)
    tl.store(out_ptr + n * W + d, out, mask=inside)


@triton.jit(do_not_specialize=["N"])
@no_type_check
def norm_gradient(
    x_ptr: tl.tensor,
    scale_ptr: tl.tensor,
    root_ptr: tl.tensor,
    g_ptr: tl.tensor,
    beside_ptr: tl.tensor,
    dx_ptr: tl.tensor,
    d_scale_ptr: tl.tensor,
    N: tl.tensor,
    W: tl.tensor,
    ADDS: tl.constexpr,
    OFFSET: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """dx (N, W) given g (N, W) at the result; d_scale (P, W): what each of P programs adds to it.

    A program takes every P-th row. ADDS: `beside` (N, W), the gradient at the sum, is added to dx.
    """
    d = tl.arange(0, BLOCK)
    inside = d < W
    scale = tl.load(scale_ptr + d, mask=inside, other=0)
    d_scale = tl.zeros([BLOCK], tl.float32)
    for row in range(tl.program_id(0), N, tl.num_programs(0)):
        n = tl.cast(row, tl.int64)
        x = tl.load(x_ptr + n * W + d, mask=inside, other=0)
        kind = x.dtype
        g = tl.load(g_ptr + n * W + d, mask=inside, other=0).to(tl.float32)
        root = tl.load(root_ptr + n)
        even = x.to(tl.float32) * root
        if OFFSET:
            at_even, factor = g * (1 + scale.to(tl.float32)), even
        else:
            at_even, factor = g * scale.to(kind).to(tl.float32), even.to(kind).to(tl.float32)
        d_scale += g * factor
        dx = root * (at_even - even * (tl.sum(at_even * even, axis=0) / W))
        if ADDS:
            dx += tl.load(beside_ptr + n * W + d, mask=inside, other=0).to(tl.float32)
        tl.store(dx_ptr + n * W + d, dx, mask=inside)
    tl.store(d_scale_ptr + tl.program_id(0).to(tl.int64) * W + d, d_scale, mask=inside)
