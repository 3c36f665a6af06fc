"""Cross entropy of a row of logits in Triton, and its gradient in the logits' place."""

from typing import no_type_check

import triton
import triton.language as tl

from ..gpu.numbers import tanh


@triton.jit
@no_type_check
def loss(
    logits_ptr: tl.tensor,
    targets_ptr: tl.tensor,
    weight_ptr: tl.tensor,
    each_ptr: tl.tensor,
    right_ptr: tl.tensor,
    V: tl.tensor,
    cap: tl.tensor,
    CAPPED: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """A row of logits (N, V): its loss, whether its target is a largest logit, its gradient.

    Two walks over the row: the largest capped logit and the sum of exponentials below it, kept up
    together; then the gradient. All in fp32, in blocks from left to right.
    """
    n = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, BLOCK)
    most, total = tl.full([], -3.0e38, tl.float32), tl.zeros([], tl.float32)
    for begin in range(0, V, BLOCK):
        at = begin + lane
        x = tl.load(logits_ptr + n * V + at, mask=at < V, other=0).to(tl.float32)
        if CAPPED:
            x = tanh(x / cap) * cap
        x = tl.where(at < V, x, -float("inf"))
        higher = tl.maximum(most, tl.max(x, axis=0))
        total = total * tl.exp(most - higher) + tl.sum(tl.exp(x - higher), axis=0)
        most = higher
    target = tl.load(targets_ptr + n)
    wanted = tl.load(logits_ptr + n * V + target).to(tl.float32)
    if CAPPED:
        wanted = tanh(wanted / cap) * cap
    tl.store(each_ptr + n, tl.log(total) + (most - wanted))
    tl.store(right_ptr + n, wanted >= most)
    weight = tl.load(weight_ptr + n)
    share = weight / total
    for begin in range(0, V, BLOCK):
        at = begin + lane
        x = tl.load(logits_ptr + n * V + at, mask=at < V, other=0).to(tl.float32)
        slope = 1.0
        if CAPPED:
            bent = tanh(x / cap)
            x, slope = bent * cap, 1 - bent * bent
        gradient = tl.exp(x - most) * share - tl.where(at == target, weight, 0.0)
        tl.store(logits_ptr + n * V + at, gradient * slope, mask=at < V)
