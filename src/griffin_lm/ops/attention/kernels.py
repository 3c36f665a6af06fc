"""Attention of a few new tokens over a ring of earlier keys, in Triton, for decoding.

The keys of a row are split among programs; each makes the softmax of its share, and a second kernel
puts the shares together in a fixed order. All queries of a key head are one matrix, padded to 16
rows, which is what the matrix units take. Softmax and sums are fp32.

Letters: N slots of the ring, S = N + T keys (ring first, then new ones), Q = T H/K queries of a key
head, D width of a head. A slot's token is known from how many the row has read; see __init__.py.
"""

from typing import no_type_check

import triton
import triton.language as tl


@triton.jit
@no_type_check
def shares(
    q_ptr: tl.tensor,
    k_ptr: tl.tensor,
    v_ptr: tl.tensor,
    ring_k_ptr: tl.tensor,
    ring_v_ptr: tl.tensor,
    read_ptr: tl.tensor,
    seen_ptr: tl.tensor,
    k_scale_ptr: tl.tensor,
    v_scale_ptr: tl.tensor,
    ring_k_scale_ptr: tl.tensor,
    ring_v_scale_ptr: tl.tensor,
    out_ptr: tl.tensor,
    most_ptr: tl.tensor,
    total_ptr: tl.tensor,
    T: tl.tensor,
    H: tl.tensor,
    K: tl.tensor,
    N: tl.tensor,
    share: tl.tensor,
    scale: tl.tensor,
    D: tl.constexpr,
    WIDE: tl.constexpr,
    ROUNDED: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    BLOCK_D: tl.constexpr,
) -> None:
    """Of `share` keys: out (B K, splits, Q, D), its largest score and its sum (.., Q); fp32.

    ROUNDED: keys and values are int8, each token's of a key head times its scale.
    """
    head, split = tl.program_id(0), tl.program_id(1)  # head counts over B K
    b, kv = (head // K).to(tl.int64), head % K
    together = H // K
    query = tl.arange(0, QUERIES)
    t = query // together
    d = tl.arange(0, BLOCK_D)
    asks, wide = query < T * together, d < D
    at_q = ((b * T + t) * H + kv * together + query % together)[:, None] * D + d[None, :]
    q = tl.load(q_ptr + at_q, mask=asks[:, None] & wide[None, :], other=0)
    if WIDE:
        q = q.to(tl.float32)
    read = tl.load(read_ptr + b)
    number = read + t
    seen = tl.load(seen_ptr + b * T + t, mask=asks, other=0)
    earliest = number - tl.minimum(seen, number)  # padding may have any position
    newest = read - 1
    most = tl.full([QUERIES], -1.0e30, tl.float32)
    total = tl.zeros([QUERIES], tl.float32)
    out = tl.zeros([QUERIES, BLOCK_D], tl.float32)
    end = tl.minimum((split + 1) * share, N + T)
    for begin in tl.range(split * share, end, KEYS):
        j = begin + tl.arange(0, KEYS)
        in_ring = j < N
        age = newest % N - j
        age = tl.where(age < 0, age + N, age)
        name = tl.where(in_ring, newest - age, read + j - N)
        there = (name >= 0) & (j < end)
        visible = (name[None, :] >= earliest[:, None]) & (name[None, :] <= number[:, None])
        visible = visible & there[None, :] & asks[:, None]
        # what nobody sees is not read: weight 0 times NaN would be NaN
        use = tl.max(visible.to(tl.int32), axis=0) > 0
        slot, fresh = (b * N + j) * K + kv, (b * T + j - N) * K + kv
        at_ring, at_new = slot[:, None] * D + d[None, :], fresh[:, None] * D + d[None, :]
        inside = use[:, None] & wide[None, :]
        k_at = tl.where(in_ring[:, None], ring_k_ptr + at_ring, k_ptr + at_new)
        v_at = tl.where(in_ring[:, None], ring_v_ptr + at_ring, v_ptr + at_new)
        k, v = tl.load(k_at, mask=inside, other=0), tl.load(v_at, mask=inside, other=0)
        if ROUNDED:
            k, v = k.to(q.dtype), v.to(q.dtype)
            k_scale_at = tl.where(in_ring, ring_k_scale_ptr + slot, k_scale_ptr + fresh)
            v_scale_at = tl.where(in_ring, ring_v_scale_ptr + slot, v_scale_ptr + fresh)
            k_scale = tl.load(k_scale_at, mask=use, other=0)
            v_scale = tl.load(v_scale_at, mask=use, other=0)
        if WIDE:
            k, v = k.to(tl.float32), v.to(tl.float32)
            scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        else:
            scores = tl.dot(q, tl.trans(k)) * scale
        if ROUNDED:
            scores *= k_scale[None, :]
        scores = tl.where(visible, scores, -float("inf"))
        higher = tl.maximum(most, tl.max(scores, axis=1))
        weight = tl.exp(scores - higher[:, None])
        shrink = tl.exp(most - higher)
        total = total * shrink + tl.sum(weight, axis=1)
        out = out * shrink[:, None]
        if ROUNDED:
            weight *= v_scale[None, :]
        if WIDE:
            out = tl.dot(weight, v, out, input_precision="ieee")
        else:
            out = tl.dot(weight.to(v.dtype), v, out)
        most = higher
    row = (tl.cast(head, tl.int64) * tl.num_programs(1) + split) * T * together + query
    tl.store(out_ptr + row[:, None] * D + d[None, :], out, mask=asks[:, None] & wide[None, :])
    tl.store(most_ptr + row, most, mask=asks)
    tl.store(total_ptr + row, total, mask=asks)


@triton.jit
@no_type_check
def together(
    part_ptr: tl.tensor,
    most_ptr: tl.tensor,
    total_ptr: tl.tensor,
    out_ptr: tl.tensor,
    T: tl.tensor,
    H: tl.tensor,
    K: tl.tensor,
    splits: tl.tensor,
    D: tl.constexpr,
    SPLITS: tl.constexpr,
    BLOCK_D: tl.constexpr,
) -> None:
    """out (B, T, H, D) of what `shares` left: one query of one key head a program."""
    head, query = tl.program_id(0), tl.program_id(1)
    queries = tl.num_programs(1)
    b, kv, shared = (head // K).to(tl.int64), head % K, H // K
    split, d = tl.arange(0, SPLITS), tl.arange(0, BLOCK_D)
    row = (tl.cast(head, tl.int64) * splits + split) * queries + query
    most = tl.load(most_ptr + row, mask=split < splits, other=-1.0e30)
    total = tl.load(total_ptr + row, mask=split < splits, other=0)
    share = tl.exp(most - tl.max(most, axis=0))
    use = (split < splits)[:, None] & (d < D)[None, :]
    part = tl.load(part_ptr + row[:, None] * D + d[None, :], mask=use, other=0)
    out = tl.sum(part * share[:, None], axis=0) / tl.sum(total * share, axis=0)
    to = (b * T + query // shared) * H + kv * shared + query % shared
    tl.store(out_ptr + to * D + d, out, mask=d < D)


@triton.jit
@no_type_check
def write_ring(
    ring_ptr: tl.tensor,
    new_ptr: tl.tensor,
    read_ptr: tl.tensor,
    count_ptr: tl.tensor,
    T: tl.tensor,
    N: tl.tensor,
    width: tl.tensor,
    BLOCK: tl.constexpr,
) -> None:
    """ring (B, N, width) takes the first count[b] of new (B, T, width); a token a program."""
    b, t = (tl.program_id(0) // T).to(tl.int64), tl.program_id(0) % T
    slot = (tl.load(read_ptr + b) + t) % N
    if t < tl.load(count_ptr + b):
        for begin in range(0, width, BLOCK):
            d = begin + tl.arange(0, BLOCK)
            new = tl.load(new_ptr + (b * T + t) * width + d, mask=d < width)
            tl.store(ring_ptr + (b * N + slot) * width + d, new, mask=d < width)
