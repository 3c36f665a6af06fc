"""From `starts` and `valid` with gaps to rows whose valid tokens come first, and back.

Taking the invalid tokens out before anything is computed makes "the result equals taking them out"
true by construction: positions, windows, conv taps and starts can only count valid tokens.
"""

from typing import NamedTuple

import torch
from jaxtyping import Int64
from torch import Tensor

from ..shapes import Counts, Flags, Tokens


class Ordered(NamedTuple):
    """One call's tokens, valid ones first.

    tokens, starts, position (B, T): padding lies at the right, its tokens are 0. counts: valid
    tokens of each row. rank: where each incoming token went (B, T), None if nothing moved.
    next_position and due (a start that met no valid token yet) are the row's after the call.
    """

    tokens: Tokens
    starts: Flags
    position: Tokens
    counts: Counts
    rank: Int64[Tensor, "B T"] | None
    next_position: Counts
    due: Tensor


def order(
    tokens: Tokens,
    starts: Flags | None,
    valid: Flags | None,
    position: Counts,
    due: Tensor,
) -> Ordered:
    """`position` is each row's next position, 0 in an empty row; `due`: a start still to come."""
    batch, length = tokens.shape
    begun = torch.zeros_like(tokens) if starts is None else starts.long().cumsum(1)
    before = -due.long()[:, None]
    asked = begun[:, -1] if length else torch.zeros_like(position)
    if valid is None:
        rank = None
        count = torch.full_like(position, length)
    else:
        rank = (valid.long().cumsum(1) - 1).clamp(min=0)
        count = valid.sum(1)
        first = valid.long().argsort(dim=1, descending=True, stable=True)
        tokens = tokens.masked_fill(~valid, 0).gather(1, first)
        begun = begun.gather(1, first)
    # a start is any that was asked for since the previous valid token
    opens = torch.cat([before, begun], dim=1).diff(dim=1) > 0
    steps = torch.arange(length, device=tokens.device).expand(batch, length)
    here = steps < count[:, None]
    if length:
        empty = (position == 0)[:, None] & (steps == 0)
        opens = (opens | empty) & here
    since = torch.where(opens, steps, -1).cummax(dim=1).values if length else steps
    place = torch.where(since >= 0, steps - since, position[:, None] + steps)
    seen = torch.where(here, begun, before).amax(1) if length else before[:, 0]
    seen = torch.maximum(seen, before[:, 0])
    some = count > 0
    last = (count - 1).clamp(min=0)[:, None]
    ahead = torch.where(some, place.gather(1, last)[:, 0] + 1, position) if length else position
    return Ordered(tokens, opens, place, count, rank, ahead, asked > seen)
