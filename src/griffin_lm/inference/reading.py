"""Reading text into a state: in chunks, so memory stays the same however long the text is."""

from collections.abc import Callable, Iterable, Sequence
from itertools import islice

import torch

from ..errors import InputError
from ..models import Griffin, State

CHUNK = 512  # tokens in a model call: enough to be busy (3 % slower than 1,024), half the memory


@torch.no_grad()
def read_rows(
    model: Griffin,
    rows: Sequence[Sequence[int]],
    state: State,
    *,
    donate: bool = False,
    chunk: int = CHUNK,
    progress: Callable[[int, int], None] | None = None,
) -> State:
    """Feeds each row its token ids, rows of any length, none among them; returns the state.

    Shorter rows are padded at the right, which the model skips. `donate`: `state` may be used up.
    `progress` is called with (tokens read, tokens in all) of the longest row.
    """
    device = model.embed.weight.device
    longest = max(map(len, rows), default=0)
    for begin in range(0, longest, chunk):
        parts = [list(row[begin : begin + chunk]) for row in rows]
        width = max(map(len, parts))
        tokens = torch.tensor([part + [0] * (width - len(part)) for part in parts], device=device)
        ragged = any(len(part) < width for part in parts)
        lengths = torch.tensor([[len(part)] for part in parts], device=device)
        valid = torch.arange(width, device=device) < lengths if ragged else None
        _, state = model(tokens, valid=valid, state=state, logits=None, donate=donate)
        donate = True  # from here on the state is our own
        if progress is not None:
            progress(min(begin + chunk, longest), longest)
    return state


def read_tokens(
    model: Griffin,
    ids: Iterable[int],
    state: State | None = None,
    *,
    chunk: int = CHUNK,
    on_chunk: Callable[[State], None] | None = None,
) -> State:
    """Reads one row of token ids, lazily; the state in which the last one is pending.

    Pending, so that `generate("", state=...)` can go on from here. `on_chunk` is called with the
    state after every chunk (progress, saving); it must not keep it, for its memory is used again:
    `clone()` what is to be kept. Without any id, returns `state` as it is. Raises `InputError`
    where neither ids nor a state is given, or the state has several rows.
    """
    if state is not None and state.batch_size != 1:
        raise InputError(f"reads one row, but the state has {state.batch_size}; pass state[row]")
    waiting: list[int] = []
    source = iter(ids)
    own = False
    while part := list(islice(source, chunk)):
        feed, waiting = [*waiting, *part[:-1]], part[-1:]
        start = model.empty_state(1) if state is None else state
        state = read_rows(model, [feed], start, donate=own, chunk=chunk + 1)
        own = own or bool(feed)
        if on_chunk is not None:
            on_chunk(_leave_pending(state, waiting))
    if state is None:
        raise InputError("nothing to read: the text is empty")
    return _leave_pending(state, waiting)


def _leave_pending(state: State, waiting: list[int]) -> State:
    return state.with_pending(waiting) if waiting else state
