"""A point of a text that one can return to: what a state holds there, without its empty part."""

import torch

from ...mixers.local_attention import AttentionState
from ...models import Griffin, State


class Mark:
    """A compact copy of a state of one row; the state itself may go on, or be used up.

    Of a ring that is not full only what was written is kept: 200 tokens in a window of 2048 take a
    tenth. Of growing caches, what was read.
    """

    def __init__(self, state: State) -> None:
        read = int(state.read.item())
        state = state.compact()
        self._layers = tuple(
            AttentionState(*(tensor[:, :read].clone() for tensor in layer))
            if isinstance(layer, AttentionState) and read < layer.k.shape[1]
            else layer
            for layer in state.layers
        )
        self._rows = state
        self.tokens = int(state.tokens.item())
        self._rows.donate()
        tensors = [tensor for layer in self._layers for tensor in layer]
        self.nbytes = sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    @torch.no_grad()
    def state(self, model: Griffin) -> State:
        """The state at this point, to the bit, in memory of its own."""
        layers = list(self._layers)
        for i, full in enumerate(model.empty_state(1).layers):
            kept = self._layers[i]
            if isinstance(kept, AttentionState) and kept.k.shape != full.k.shape:
                for mine, theirs in zip(full, kept, strict=True):
                    mine[:, : theirs.shape[1]] = theirs
                layers[i] = full
        rows = self._rows
        state = State(tuple(layers), rows.read, rows.position, rows.due, rows.origin, rows.pending)
        return state.clone()
