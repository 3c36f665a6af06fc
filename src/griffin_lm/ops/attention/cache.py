"""Writing a growing cache: the tokens of each row's newest document lie in slots 0, 1, 2 and on."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from ...shapes import Counts, Tokens


def with_slots(cache: Float[Tensor, "B N K D"], slots: int) -> Float[Tensor, "B M K D"]:
    """The same entries in `slots` slots: zeros behind them, or the last slots cut off."""
    have = cache.shape[1]
    if slots <= have:
        return cache[:, :slots]
    return pad(cache, (0, 0, 0, 0, 0, slots - have))


def write_slots(
    cache: Float[Tensor, "B N K D"],
    new: Float[Tensor, "B T K D"],
    position: Tokens,
    count: Counts,
    in_place: bool = False,
) -> Float[Tensor, "B N K D"]:
    """The cache after each row read the first `count` of the T `new` entries.

    position: of each token in its document; N must hold each row's last. A row that read nothing
    keeps its slots to the bit. Otherwise slots past the newest document are zero; written in place
    (O(T), the cache's memory is used up) they hold leftovers, which nothing may look at.
    """
    slots, length = cache.shape[1], new.shape[1]
    inner = new.shape[2:]
    last = (count - 1).clamp(min=0)
    # the newest document's slot s is this call's token s + ahead; negative: it was there before
    ahead = last - position.gather(1, last[:, None])[:, 0]
    if in_place and length <= slots:
        # its first token of this call goes to slot `begin`, the others of the call one after the
        # other behind it; those that must not be written put back what lay there
        first = ahead.clamp(min=0)
        begin = first - ahead
        rank = (torch.arange(length, device=new.device) - first[:, None]).remainder(length)
        where = (begin[:, None] + rank).remainder(slots)[..., None, None].expand(-1, -1, *inner)
        written = (rank < (count - first)[:, None])[..., None, None]
        return cache.scatter_(1, where, torch.where(written, new, cache.gather(1, where)))
    source = torch.arange(slots, device=new.device) + ahead[:, None]
    nothing = (count == 0)[:, None]
    fresh = ((source >= 0) & (source < count[:, None]))[..., None, None]
    kept = ((source < 0) | nothing)[..., None, None]
    at = source.clamp(min=0, max=length - 1)[..., None, None].expand(-1, -1, *inner)
    return torch.where(fresh, new.gather(1, at), torch.where(kept, cache, torch.zeros_like(cache)))
