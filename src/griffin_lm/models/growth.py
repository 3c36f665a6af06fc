"""States that grow: how many slots a call needs, and rows of unequal capacity side by side.

Every growing layer of a model has the same capacity, since all of them read the same tokens. That a
row fits is known on the host without asking the device: a call of T tokens moves no row by more
than T, so the device is waited for only when that bound passes the capacity, once in many tokens.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..mixers import MixerState
from ..mixers.base import capacity, longest
from ..ops.attention.cache import with_slots
from ..shapes import Counts

if TYPE_CHECKING:
    from .state import State

Layers = tuple[MixerState, ...]


def slots_of(layers: Layers) -> int | None:
    """The capacity of the growing layers; None where no layer grows."""
    every = [capacity(layer) for layer in layers]
    slots = [have for have in every if have is not None]
    return max(slots) if slots else None


def slots_needed(state: "State", ends: Counts, length: int) -> int | None:
    """No row's document is longer than this after a call of `length` tokens; None: nothing grows.

    ends: the rows' positions after the call. Waits for the device where a bound may not do.
    """
    have = slots_of(state.layers)
    if have is None:
        return None
    bound = (have if state.longest is None else state.longest) + length
    if bound <= have or torch.compiler.is_compiling():  # a compiled call may not look: it takes
        return bound  # the bound, at worst some slots too many
    return longest(ends)


def with_capacity(layers: Layers, slots: int | None) -> Layers:
    """The same layers, the growing ones with this many slots: zeros added, or the last cut off."""
    if slots is None:
        return layers
    return tuple(
        layer
        if capacity(layer) in (None, slots)
        else type(layer)(*(with_slots(tensor, slots) for tensor in layer))
        for layer in layers
    )


def used_only(layers: Layers, position: Counts) -> Layers:
    """Copies of the layers: as many slots as the longest row uses, zeros where a row uses fewer."""
    cut = with_capacity(layers, longest(position) if slots_of(layers) is not None else None)

    def cleared(tensor: Tensor) -> Tensor:
        slot = torch.arange(tensor.shape[1], device=tensor.device)
        used = (slot < position[:, None]).view(*tensor.shape[:2], *[1] * (tensor.dim() - 2))
        return torch.where(used, tensor, torch.zeros_like(tensor))

    return tuple(
        type(layer)(*(t.clone() if capacity(layer) is None else cleared(t) for t in layer))
        for layer in cut
    )


def unequal(layers: Layers, position: Counts) -> str | None:
    """What is wrong with the capacities of layers that were read from a file; None: nothing."""
    slots = {t.shape[1] for layer in layers if capacity(layer) is not None for t in layer}
    if len(slots) > 1:
        return f"its layers hold different numbers of tokens: {sorted(slots)}"
    if slots and longest(position) > max(slots):
        return f"a row stands at position {longest(position)}, its layers hold {max(slots)} tokens"
    return None
