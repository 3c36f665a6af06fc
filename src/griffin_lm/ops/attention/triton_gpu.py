"""Attention over a ring on a GPU: a kernel for the few tokens of a decode step, FlexAttention else.

FlexAttention (PyTorch's own) makes its kernel by torch.compile, from a predicate and a map of which
blocks of keys a block of queries meets; a dense mask never exists. Making it takes many seconds, so
short prompts go the way of PyTorch's masked attention.
"""

import torch
from torch import Tensor

from .. import gpu
from ..backend import preferred
from ..quantized_linear.triton_gpu import quantized
from . import flex

_QUERIES = 32  # of a key head, at most, in the decode kernel: 3 tokens of 10 heads
_KEYS = 32  # of a program at a time: with three tiles of keys and values under way, 96 KiB of bf16
_LEAST_SHARE = 128  # keys of a program
_LONG = 256  # tokens from which a prompt is worth FlexAttention


def key_splits(heads: int, keys: int, processors: int) -> int:
    """Among how many programs the keys of each of so many (row, key head) pairs are split.

    Two programs a multiprocessor, if the keys are enough. A row's bits depend on it: on the batch.
    """
    most = -(-keys // _LEAST_SHARE)
    return max(1, min(most, -(-2 * processors // max(1, heads))))


def decode(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    ring_k: Tensor,
    ring_v: Tensor,
    read: Tensor,
    seen: Tensor,
    splits: int,
    scales: tuple[Tensor, ...] = (),
) -> Tensor:
    """As ops.attention.windowed_attention for few T, keys split so; contiguous tensors.

    scales: of k, v and the rings (.., 1) fp32, where these are int8.
    """
    from . import kernels

    (batch, steps, heads, width), slots, kv_heads = q.shape, ring_k.shape[1], k.shape[2]
    out = torch.empty_like(q)
    if q.numel() == 0:
        return out
    keys = slots + steps
    share = -(-keys // (splits * _KEYS)) * _KEYS  # whole tiles of keys
    splits = -(-keys // share)
    rows, queries = batch * kv_heads, steps * heads // kv_heads
    part = torch.empty(rows, splits, queries, width, dtype=torch.float32, device=q.device)
    most, total = (part.new_empty(rows, splits, queries) for _ in range(2))
    block_d = max(16, gpu.power_of_two(width))
    gpu.launch(
        kernels.shares,
        (rows, splits),
        *(q, k, v, ring_k, ring_v, read, seen, *(scales or (part, part, part, part))),
        *(part, most, total),
        *(steps, heads, kv_heads, slots, share, width**-0.5),
        D=width,
        WIDE=q.dtype == torch.float32 or gpu.INTERPRETED,
        ROUNDED=bool(scales),
        QUERIES=max(16, gpu.power_of_two(queries)),
        KEYS=_KEYS if q.dtype != torch.float32 else _KEYS // 2,
        BLOCK_D=block_d,
        warps=8 if q.dtype == torch.float32 else 4,  # exact fp32 products take registers
    )
    gpu.launch(
        kernels.together,
        (rows, queries),
        *(part, most, total, out, steps, heads, kv_heads, splits),
        D=width,
        SPLITS=gpu.power_of_two(splits),
        BLOCK_D=block_d,
    )
    return out


def _few(q: Tensor, k: Tensor) -> bool:
    return q.shape[1] * q.shape[2] // k.shape[2] <= _QUERIES


def _wants_gradient(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def windowed_attention(
    q: Tensor, k: Tensor, v: Tensor, ring_k: Tensor, ring_v: Tensor, read: Tensor, seen: Tensor
) -> Tensor:
    """As ops.attention.windowed_attention; seen (B, T) int64: earlier tokens each query sees."""
    tensors = (q, k, v, ring_k, ring_v, read, seen)
    if torch.compiler.is_compiling() or _wants_gradient(q, k, v) or not _few(q, k):
        return flex.windowed(*tensors)
    splits = key_splits(
        q.shape[0] * k.shape[2], ring_k.shape[1] + q.shape[1], gpu.multiprocessors(q)
    )
    return decode(*(tensor.contiguous() for tensor in tensors), splits=splits)


def why_not(
    q: Tensor, k: Tensor, v: Tensor, ring_k: Tensor, ring_v: Tensor, read: Tensor, seen: Tensor
) -> str | None:
    """One dtype of 16 or 32 bits; few tokens, many, or a gradient; on a GPU."""
    if not q.dtype == k.dtype == v.dtype == ring_k.dtype == ring_v.dtype:
        return f"it takes one dtype, not {q.dtype}, {k.dtype}, {ring_k.dtype}"
    if q.dtype not in gpu.DTYPES:
        return f"it takes 16 or 32 bits, not {q.dtype}"
    long = torch.compiler.is_compiling() or _wants_gradient(q, k, v) or not _few(q, k)
    if long and gpu.INTERPRETED:
        return "FlexAttention runs on no interpreter"
    if long and (reason := flex.why_not(q)) is not None:
        return reason
    short = not _few(q, k) and q.shape[1] < _LONG and not _wants_gradient(q, k, v)
    if short and preferred() == "auto" and not torch.compiler.is_compiling():
        return f"for {q.shape[1]} tokens PyTorch's attention under a mask starts sooner"
    return gpu.why_not(q, k, v, ring_k, ring_v)


def rounded(x: Tensor) -> tuple[Tensor, Tensor]:
    """x (B, T, K, D) in int8, and its scales (B, T, K, 1)."""
    q, scale = quantized(x.reshape(-1, x.shape[-1]).contiguous(), x.shape[-1])
    return q.view(x.shape), scale.view(*x.shape[:-1], 1)


def why_not_rounded(x: Tensor) -> str | None:
    """16 or 32 bits, without a gradient; on a GPU."""
    if torch.compiler.is_compiling():
        return "torch.compile makes its own"
    if x.dtype not in gpu.DTYPES or _wants_gradient(x) or not x.numel():
        return f"it rounds numbers of 16 or 32 bits, without a gradient, not {x.dtype}"
    return gpu.why_not(x)


def attention_over_rounded(
    q: Tensor,
    k: Tensor,
    k_scale: Tensor,
    v: Tensor,
    v_scale: Tensor,
    ring_k: Tensor,
    ring_k_scale: Tensor,
    ring_v: Tensor,
    ring_v_scale: Tensor,
    read: Tensor,
    seen: Tensor,
) -> Tensor:
    """As ops.attention.rounded.rounded_attention, of few tokens."""
    splits = key_splits(
        q.shape[0] * k.shape[2], ring_k.shape[1] + q.shape[1], gpu.multiprocessors(q)
    )
    tensors = (t.contiguous() for t in (q, k, v, ring_k, ring_v, read, seen))
    scales = tuple(t.contiguous() for t in (k_scale, v_scale, ring_k_scale, ring_v_scale))
    return decode(*tensors, splits=splits, scales=scales)


def why_not_over_rounded(q: Tensor, k: Tensor, *rest: Tensor) -> str | None:
    """Few queries of 16 or 32 bits, without a gradient; on a GPU."""
    if torch.compiler.is_compiling():
        return "torch.compile makes its own"
    if q.dtype not in gpu.DTYPES or _wants_gradient(q):
        return f"it takes queries of 16 or 32 bits, without a gradient, not {q.dtype}"
    if not _few(q, k) and preferred() == "auto":
        return f"for {q.shape[1]} tokens the keys are restored"
    return gpu.why_not(q, k, *rest)


def write_ring(ring: Tensor, new: Tensor, read: Tensor, count: Tensor) -> Tensor:
    """As ops.attention.write_ring in place: (B, N, K, D), T at most N; of any dtype."""
    from . import kernels

    if new.numel():
        width = new[0, 0].numel()
        gpu.launch(
            kernels.write_ring,
            (new.shape[0] * new.shape[1],),
            *(ring, new.contiguous(), read.contiguous(), count.contiguous()),
            *(new.shape[1], ring.shape[1], width),
            BLOCK=min(1024, gpu.power_of_two(width)),
            warps=2,
        )
    return ring


def why_not_written(ring: Tensor, new: Tensor, read: Tensor, count: Tensor) -> str | None:
    """A contiguous ring of the new entries' dtype, without a gradient; on a GPU."""
    if torch.compiler.is_compiling():
        return "torch.compile makes its own"
    if _wants_gradient(ring, new):
        return "it has no gradient: use torch.no_grad()"
    if not ring.is_contiguous() or ring.dtype != new.dtype:
        return "the ring is not contiguous, or of another dtype"
    return gpu.why_not(ring, new, read, count)
