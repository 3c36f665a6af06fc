"""A model's state as it is after a long text, without reading one: for time and memory only."""

import torch
from torch import Tensor

from ..mixers.base import capacity
from ..models import Griffin, State
from ..models.growth import with_capacity

TILE = 1 << 20  # numbers drawn, then repeated: drawing billions would take minutes
SPREAD = 0.02


def state_after(model: Griffin, rows: int, context: int, more: int) -> State:
    """Rows that have read `context` tokens, with room for `more` in caches that grow.

    Rings, caches and recurrent states hold random numbers of no meaning: how long a step takes does
    not depend on them.
    """
    empty = model.empty_state(rows)
    layers = with_capacity(empty.layers, None)
    if any(capacity(layer) is not None for layer in layers):
        layers = with_capacity(layers, slots_for(context + more))
    state = State(layers, empty.read, empty.position, empty.due, empty.origin, longest=context)
    if context:
        for layer in layers:
            for tensor in layer:
                fill(tensor)
        state.read.fill_(context)
        state.position.fill_(context)
    return state


def slots_for(tokens: int, step: int = 256) -> int:
    """Slots of a growing cache for so many tokens: whole steps."""
    return -(-tokens // step) * step


def state_bytes(model: Griffin, tokens: int) -> int:
    """Bytes of one row's state once it has read so many tokens, growing caches in whole steps."""
    state = model.empty_state(1)
    return state.nbytes + state.bytes_per_token * slots_for(tokens)


def fill(tensor: Tensor) -> None:
    """The same random numbers over and over."""
    numbers = torch.randn(min(TILE, tensor.numel()), generator=torch.Generator().manual_seed(0))
    tile = (numbers * SPREAD).to(tensor)
    flat = tensor.view(-1)
    whole = len(flat) // max(1, len(tile)) * len(tile)
    if whole:
        flat[:whole].view(-1, len(tile)).copy_(tile)
        flat[whole:].copy_(tile[: len(flat) - whole])
