"""Attention in training, where a query sees a run of keys: products of whole blocks, no mask.

A block of queries meets only the keys that any of them sees, so the work grows with the window, not
with the length. The compiled library makes the softmax of each row over its own run; scores live in
one buffer for all blocks. Going backward they are made again: what is kept is a number a row.
Registered with torch.library, so that torch.compile calls it instead of looking inside.

So in fp32. bf16 is whole in the compiled library where the processor multiplies it (src/native/
band_bf16.cpp), and is widened elsewhere.
"""

from collections.abc import Callable, Generator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import native

_NUMBERS = 2**20  # of scores in memory at once, about: 4 MiB stay near the processor
_BLOCKS = (32, 512)  # the fewest and the most queries at once

torch.library.define(
    "griffin_lm::band_attention",
    "(Tensor q, Tensor k, Tensor v, Tensor first, Tensor last) -> (Tensor, Tensor)",
)
torch.library.define(
    "griffin_lm::band_attention_backward",
    "(Tensor q, Tensor k, Tensor v, Tensor first, Tensor last, Tensor? out, Tensor lse,"
    " Tensor g) -> (Tensor, Tensor, Tensor)",
)


class _Block(NamedTuple):
    """queries: of the stacked ones; keys: what they meet; first, end: int32, counted in keys."""

    queries: slice
    keys: slice
    first: Tensor
    end: Tensor


def _stacked(x: Tensor, heads: int) -> Tensor:
    """(B, T, H, D) to (B K, T H/K, D); a view where there is one key head."""
    batch, length, _, width = x.shape
    split = x.reshape(batch, length, heads, -1, width).permute(0, 2, 1, 3, 4)
    return split.reshape(batch * heads, -1, width)


def _unstacked(x: Tensor, batch: int, length: int) -> Tensor:
    """The inverse of _stacked."""
    heads, width = x.shape[0] // batch, x.shape[-1]
    split = x.view(batch, heads, length, -1, width).permute(0, 2, 1, 3, 4)
    return split.reshape(batch, length, -1, width)


def _blocks(first: Tensor, last: Tensor, heads: int, shared: int) -> Generator[_Block]:
    """The queries in blocks, with the keys that each block sees."""
    length = first.shape[1]
    widest = int((last - first).max()) + 1
    rows = first.shape[0] * heads * shared
    step = _BLOCKS[0]
    while step < _BLOCKS[1] and rows * 2 * step * (widest + 2 * step) <= _NUMBERS:
        step *= 2
    for begin in range(0, length, step):
        span = slice(begin, min(begin + step, length))
        low, high = int(first[:, span].min()), int(last[:, span].max()) + 1

        def inside(bound: Tensor, low: int = low) -> Tensor:
            return (bound - low).to(torch.int32).repeat_interleave(heads, 0).reshape(-1)

        yield _Block(
            slice(span.start * shared, span.stop * shared),
            slice(low, high),
            inside(first[:, span]),
            inside(last[:, span] + 1),
        )


def _product(a: Tensor, b: Tensor, room: Tensor) -> Tensor:
    """a b, batches of matrices, written to the beginning of a flat buffer."""
    shape = (a.shape[0], a.shape[1], b.shape[2])
    out = room[: shape[0] * shape[1] * shape[2]].view(shape)
    if shape[0] == 1:  # a batched product of one is slower than the product
        torch.mm(a[0], b[0], out=out[0])
        return out
    return torch.bmm(a, b, out=out)


def _add_product(to: Tensor, a: Tensor, b: Tensor) -> None:
    """to += a b."""
    if to.shape[0] == 1:
        to[0].addmm_(a[0], b[0])
    else:
        to.baddbmm_(a, b)


def _room(blocks: list[_Block], batch: int) -> Tensor:
    sizes = ((b.queries.stop - b.queries.start) * (b.keys.stop - b.keys.start) for b in blocks)
    return torch.empty(batch * max(sizes, default=0))


def _forward(q: Tensor, k: Tensor, v: Tensor, first: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
    if q.dtype == torch.bfloat16:
        if native.has_band():
            return native.band_forward(*(tensor.contiguous() for tensor in (q, k, v, first, last)))
        out, lse = _forward(q.float(), k.float(), v.float(), first, last)
        return out.bfloat16(), lse
    batch, length, heads, width = q.shape
    shared = heads // k.shape[2]
    queries, keys, values = (_stacked(x, k.shape[2]) for x in (q, k, v))
    out = torch.empty_like(queries)
    lse = torch.empty(queries.shape[:2])
    blocks = list(_blocks(first, last, k.shape[2], shared))
    room = _room(blocks, queries.shape[0])
    for block in blocks:
        scores = _product(queries[:, block.queries], keys[:, block.keys].transpose(1, 2), room)
        flat = scores.view(-1, scores.shape[2])
        found = native.band_softmax(flat, block.first, block.end, width**-0.5)
        lse[:, block.queries] = found.view(scores.shape[:2])
        if out.shape[0] == 1:
            torch.mm(scores[0], values[0, block.keys], out=out[0, block.queries])
        else:
            out[:, block.queries] = torch.bmm(scores, values[:, block.keys])
    return _unstacked(out, batch, length), lse


def _backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    first: Tensor,
    last: Tensor,
    out: Tensor | None,
    lse: Tensor,
    g: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    if out is not None:
        given = (q, k, v, first, last, out, lse, g)
        if native.has_band():
            return native.band_backward(*(tensor.contiguous() for tensor in given))
        wide = q.float(), k.float(), v.float()
        at_q, at_k, at_v = _backward(*wide, first, last, None, lse, g.float())
        return at_q.bfloat16(), at_k.bfloat16(), at_v.bfloat16()
    batch, length, heads, width = q.shape
    shared = heads // k.shape[2]
    queries, keys, values, slopes = (_stacked(x, k.shape[2]) for x in (q, k, v, g))
    at_queries = torch.empty_like(queries)
    at_keys, at_values = torch.zeros_like(keys), torch.zeros_like(values)
    blocks = list(_blocks(first, last, k.shape[2], shared))
    room, other = (_room(blocks, queries.shape[0]) for _ in range(2))
    for block in blocks:
        rows, seen = block.queries, block.keys
        scores = _product(queries[:, rows], keys[:, seen].transpose(1, 2), room)
        slope = _product(slopes[:, rows], values[:, seen].transpose(1, 2), other)
        flat, at_flat = scores.view(-1, scores.shape[2]), slope.view(-1, slope.shape[2])
        sums = lse[:, rows].reshape(-1)
        native.band_gradient(flat, at_flat, block.first, block.end, sums, width**-0.5)
        _add_product(at_values[:, seen], scores.transpose(1, 2), slopes[:, rows])
        _add_product(at_keys[:, seen], slope.transpose(1, 2), queries[:, rows])
        if batch == at_queries.shape[0] == 1:
            torch.mm(slope[0], keys[0, seen], out=at_queries[0, rows])
        else:
            at_queries[:, rows] = torch.bmm(slope, keys[:, seen])
    return (
        _unstacked(at_queries, batch, length),
        _unstacked(at_keys, batch, k.shape[1]),
        _unstacked(at_values, batch, k.shape[1]),
    )


def _as_they_are(run: Callable[..., Any]) -> Callable[..., Any]:
    """Autocast would reach into an operation and round what some of its products multiply."""

    def in_fp32(*tensors: Tensor | None) -> Any:
        with torch.autocast("cpu", enabled=False):
            return run(*tensors)

    return in_fp32


torch.library.impl("griffin_lm::band_attention", "cpu", func=_as_they_are(_forward))
torch.library.impl("griffin_lm::band_attention_backward", "cpu", func=_as_they_are(_backward))


def _shapes(q: Tensor, k: Tensor, *_: Tensor | None) -> tuple[Tensor, Tensor]:
    heads = k.shape[2]
    rows = (q.shape[0] * heads, q.shape[1] * (q.shape[2] // heads))
    return q.new_empty(q.shape), q.new_empty(rows, dtype=torch.float32)


def _backward_shapes(
    q: Tensor, k: Tensor, v: Tensor, *_: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


torch.library.register_fake("griffin_lm::band_attention", _shapes)
torch.library.register_fake("griffin_lm::band_attention_backward", _backward_shapes)


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    out = output[0] if output[0].dtype == torch.bfloat16 else None
    ctx.save_for_backward(*inputs, out, output[1])


def _gradient(ctx: Any, g: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    found = torch.ops.griffin_lm.band_attention_backward(*ctx.saved_tensors, g)
    return (*found, None, None)


torch.library.register_autograd("griffin_lm::band_attention", _gradient, setup_context=_keep)


def band_attention(q: Tensor, k: Tensor, v: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """softmax(q k / sqrt(D)) v over each query's keys first to last.

    q (B, T, H, D), k and v (B, S, K, D), first <= last (B, T) int64; (B, T, H, D). fp32 is computed
    as such. bf16, where the processor multiplies it: products of bf16, to which the softmax is
    rounded too, with fp32 sums (FlashAttention-2, Dao 2023); elsewhere in fp32, rounded in the end.
    """
    if q.dtype == k.dtype == v.dtype == torch.bfloat16:
        return torch.ops.griffin_lm.band_attention(q, k, v, first, last)[0]
    wide = (tensor.float() for tensor in (q, k, v))
    return torch.ops.griffin_lm.band_attention(*wide, first, last)[0].to(q.dtype)


def why_not(q: Tensor, k: Tensor, v: Tensor) -> str | None:
    """bf16 or fp32 on the CPU."""
    for tensor in (q, k, v):
        if tensor.dtype not in (torch.bfloat16, torch.float32):
            return f"attention in training takes bfloat16 or float32, not {tensor.dtype}"
    return native.why_not(q, k, v)
