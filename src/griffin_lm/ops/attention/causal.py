"""Causal attention over a growing cache of keys and values (Vaswani et al. 2017).

The n-th token of a row's document (n counts from 0 in each document) lies in slot n of the row's
cache, so a start begins again at slot 0 and the cache is as long as the longest document. A query
sees the keys of its own document that are not later.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from ...shapes import Tokens

_BLOCK = 512  # rows of scores at once for each key head: bounds the mask to 512 x keys per row


def causal_attention(
    q: Float[Tensor, "B T H D"],
    k: Float[Tensor, "B T K D"],
    v: Float[Tensor, "B T K D"],
    cache_k: Float[Tensor, "B N K D"],
    cache_v: Float[Tensor, "B N K D"],
    position: Tokens,
) -> Float[Tensor, "B T H D"]:
    """Attention of T new tokens; the caches are as they were before them.

    position: of each token in its document.
    Never holds more than a block of 512 * K / H queries against N + T keys.
    """
    length, slots = q.shape[1], cache_k.shape[1]
    step = torch.arange(length, device=q.device)
    slot = torch.arange(slots, device=q.device)
    held = position - step  # how many of a query's document lay in the cache; negative: none did
    keys = torch.cat([cache_k, k], 1) if slots else k
    values = torch.cat([cache_v, v], 1) if slots else v
    block = max(1, _BLOCK * k.shape[2] // q.shape[2])
    outs: list[Tensor] = []
    for begin in range(0, length, block):
        asking, end = slice(begin, begin + block), slots + min(begin + block, length)
        now, first = step[asking, None], -held[:, asking, None]  # first token of the document
        new = (step[: end - slots] <= now) & (step[: end - slots] >= first)
        old = slot < held[:, asking, None]
        visible = torch.cat([old, new], 2)
        outs.append(attend(q[:, asking], keys[:, :end], values[:, :end], visible))
    return torch.cat(outs, dim=1) if len(outs) > 1 else outs[0]


def next_token_attention(
    q: Float[Tensor, "B 1 H D"],
    cache_k: Float[Tensor, "B N K D"],
    cache_v: Float[Tensor, "B N K D"],
    position: Tokens,
) -> Float[Tensor, "B 1 H D"]:
    """The same for one token a row whose key and value are in the caches already: nothing copied.

    A row whose token is padding gets something finite.
    """
    slots = cache_k.shape[1]
    if not slots:  # padding in rows that have read nothing
        return torch.zeros_like(q)
    slot = torch.arange(slots, device=q.device)
    return attend(q, cache_k, cache_v, slot <= position[..., None])


def attend(
    q: Float[Tensor, "B T H D"],
    k: Float[Tensor, "B S K D"],
    v: Float[Tensor, "B S K D"],
    visible: Bool[Tensor, "B T S"],
) -> Float[Tensor, "B T H D"]:
    """softmax(q k / sqrt(D)) v where `visible`; key head i serves query heads i H/K and on.

    The H/K query heads of a key head are stacked along time, so no key is copied.
    """
    heads, length = k.shape[2], q.shape[1]
    shared = q.shape[2] // heads
    stacked = q.unflatten(2, (heads, shared)).permute(0, 2, 3, 1, 4).flatten(2, 3)
    mask = visible[:, None, None].expand(-1, 1, shared, -1, -1).flatten(2, 3)
    out = scaled_dot_product_attention(stacked, k.transpose(1, 2), v.transpose(1, 2), mask)
    return out.unflatten(2, (shared, length)).permute(0, 3, 1, 2, 4).flatten(2, 3)
