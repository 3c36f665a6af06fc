"""Sliding-window attention over a ring of earlier keys and values (Griffin, section 2.3).

A row's n-th token (n counts from 0 over all the row ever read) lies in slot n mod N of its ring. A
query sees a key if the key is of the same document, not later, and at most `window` tokens earlier:
`window` + 1 keys with itself. Since documents are contiguous, both conditions are one: the key's
number is at least the query's minus min(window, the query's position in its document).
"""

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from ...shapes import Counts, Tokens
from .. import native
from ..backend import Backend, always, choose
from . import band, triton_gpu

_LARGEST_BLOCK = 512  # queries at once: bounds the mask to 512 x (window + 512) per row
_SMALLEST_BLOCK = 128


def newest_in_slots(read: Counts, slots: int) -> Int64[Tensor, "B N"]:
    """The number of the token that each slot holds once `read` tokens were; negative where none."""
    slot = torch.arange(slots, device=read.device)
    newest = read[:, None] - 1
    return newest - (newest - slot).remainder(slots)


def seen_by(position: Tokens, window: int, reach: Counts | None) -> Tokens:
    """How many earlier tokens each token sees, as far as it has read so many."""
    seen = position.clamp(max=window)
    return seen if reach is None else torch.minimum(seen, reach[:, None])


def windowed_attention(
    q: Float[Tensor, "B T H D"],
    k: Float[Tensor, "B T K D"],
    v: Float[Tensor, "B T K D"],
    ring_k: Float[Tensor, "B N K D"],
    ring_v: Float[Tensor, "B N K D"],
    read: Counts,
    position: Tokens,
    reach: Counts | None = None,
) -> Float[Tensor, "B T H D"]:
    """Attention of T new tokens, of which `read` came before in each row; N is the window.

    position: of each token in its document. reach: per row, a shorter window for this call only.
    Never holds more than a block of 512 queries against window + 512 keys.
    """
    seen = seen_by(position, ring_k.shape[1], reach)
    arguments = (q, k, v, ring_k, ring_v, read, seen)
    return choose("attention over a window", BACKENDS, *arguments)(*arguments)


def _reference(
    q: Tensor, k: Tensor, v: Tensor, ring_k: Tensor, ring_v: Tensor, read: Tensor, seen: Tensor
) -> Tensor:
    """In blocks of queries, by PyTorch's attention under a mask."""
    length, window = q.shape[1], ring_k.shape[1]
    number = read[:, None] + torch.arange(length, device=q.device)
    earliest = number - seen
    in_ring = newest_in_slots(read, window)
    block = max(_SMALLEST_BLOCK, min(window, _LARGEST_BLOCK))
    outs: list[Tensor] = []
    for begin in range(0, length, block):
        end = min(begin + block, length)
        first = max(0, begin - window)
        keys, values, names = k[:, first:end], v[:, first:end], number[:, first:end]
        if begin < window:
            keys, values = torch.cat([ring_k, keys], 1), torch.cat([ring_v, values], 1)
            names = torch.cat([in_ring, names], 1)
        asking = slice(begin, end)
        visible = (names[:, None] >= earliest[:, asking, None]) & (
            names[:, None] <= number[:, asking, None]
        )
        # a slot that was never written has a negative number; `earliest` never is
        outs.append(_attend(q[:, asking], keys, values, visible))
    return torch.cat(outs, dim=1) if len(outs) > 1 else outs[0]


def _attend(
    q: Float[Tensor, "B T H D"],
    k: Float[Tensor, "B S K D"],
    v: Float[Tensor, "B S K D"],
    visible: Bool[Tensor, "B T S"],
) -> Float[Tensor, "B T H D"]:
    """softmax(q k / sqrt(D)) v where `visible`; H is a multiple of K, a key head serves H / K."""
    batch, keys, heads, width = k.shape
    shared = q.shape[2] // heads
    if shared > 1:  # for one key head (MQA) this is a view

        def spread(tensor: Tensor) -> Tensor:
            wide = tensor[:, :, :, None].expand(batch, keys, heads, shared, width)
            return wide.reshape(batch, keys, heads * shared, width)

        k, v = spread(k), spread(v)
    out = scaled_dot_product_attention(
        q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=visible[:, None]
    )
    return out.transpose(1, 2)


def _banded(
    q: Tensor, k: Tensor, v: Tensor, ring_k: Tensor, ring_v: Tensor, read: Tensor, seen: Tensor
) -> Tensor:
    """For training: the ring in the order of time before the new keys, so each query sees a run."""
    length, window = q.shape[1], ring_k.shape[1]
    step = torch.arange(length, device=q.device)
    slot = (read[:, None] + torch.arange(window, device=q.device)).remainder(window)
    at = slot[..., None, None].expand(-1, -1, *k.shape[2:])
    keys, values = torch.cat([ring_k.gather(1, at), k], 1), torch.cat([ring_v.gather(1, at), v], 1)
    last = (window + step).expand(seen.shape)
    # padding may have any position; a slot that was never written is not seen
    return band.band_attention(
        q, keys, values, last - torch.minimum(seen, read[:, None] + step), last
    )


def _native(
    q: Tensor, k: Tensor, v: Tensor, ring_k: Tensor, ring_v: Tensor, read: Tensor, seen: Tensor
) -> Tensor:
    number = read[:, None] + torch.arange(q.shape[1])
    seen = torch.minimum(seen, number)  # padding may have any position
    tensors = (q, k, v, ring_k, ring_v, read, seen)
    return native.ring_attention(*(tensor.contiguous() for tensor in tensors))


def _why_not_native(
    q: Tensor, k: Tensor, v: Tensor, ring_k: Tensor, ring_v: Tensor, read: Tensor, seen: Tensor
) -> str | None:
    if _trains(q, k, v):
        return None
    if torch.compiler.is_compiling():
        return "torch.compile makes its own"
    if torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad):
        return "it has no gradient: use torch.no_grad()"
    if q.dtype not in (torch.bfloat16, torch.float32):
        return f"it takes bfloat16 or float32, not {q.dtype}"
    return native.why_not(q, k, v, ring_k, ring_v)


def _trains(*arguments: Tensor) -> bool:
    """Whether a gradient is wanted that the compiled library can give."""
    q, k, v = arguments[:3]
    wanted = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)
    return wanted and band.why_not(q, k, v) is None


def _native_either(*arguments: Tensor) -> Tensor:
    """Where a gradient is wanted, another way: blocks of products, which can go backward."""
    return (_banded if _trains(*arguments) else _native)(*arguments)


BACKENDS = (
    Backend("triton", triton_gpu.windowed_attention, triton_gpu.why_not),
    Backend("native", _native_either, _why_not_native),
    Backend("reference", _reference, always),
)


def write_ring(
    ring: Shaped[Tensor, "B N K D"],
    new: Shaped[Tensor, "B T K D"],
    read: Counts,
    count: Counts,
    in_place: bool = False,
) -> Shaped[Tensor, "B N K D"]:
    """The ring after each row read the first `count` of the T `new` entries, `read` before them."""
    slots = ring.shape[1]
    if in_place and new.shape[1] <= slots:
        arguments = (ring, new, read, count)
        return choose("writing a ring", RING_BACKENDS, *arguments)(*arguments)
    source = newest_in_slots(read + count, slots) - read[:, None]
    fresh = new.gather(1, source.clamp(min=0)[..., None, None].expand(-1, -1, *ring.shape[2:]))
    return torch.where((source >= 0)[..., None, None], fresh, ring)


def _write_reference(ring: Tensor, new: Tensor, read: Tensor, count: Tensor) -> Tensor:
    step = torch.arange(new.shape[1], device=ring.device)
    where = (read[:, None] + step).remainder(ring.shape[1])[..., None, None]
    where = where.expand(-1, -1, *ring.shape[2:])
    counts = (step < count[:, None])[..., None, None]
    return ring.scatter_(1, where, torch.where(counts, new, ring.gather(1, where)))


def _write_native(ring: Tensor, new: Tensor, read: Tensor, count: Tensor) -> Tensor:
    return native.write_ring(ring, new.contiguous(), read.contiguous(), count.contiguous())


def _why_not_written(ring: Tensor, new: Tensor, read: Tensor, count: Tensor) -> str | None:
    if torch.compiler.is_compiling():
        return "torch.compile makes its own"
    if torch.is_grad_enabled() and (ring.requires_grad or new.requires_grad):
        return "it has no gradient: use torch.no_grad()"
    if not ring.is_contiguous():
        return "the ring is not contiguous"
    return native.why_not(ring, new, read, count)


# A decode step writes one slot of each ring: one call in place of seven.
RING_BACKENDS = (
    Backend("triton", triton_gpu.write_ring, triton_gpu.why_not_written),
    Backend("native", _write_native, _why_not_written),
    Backend("reference", _write_reference, always),
)
