"""The state of a batch of rows: all that the model knows of what it has read.

Its size is fixed, however long the text, in models of recurrences and local attention; global
attention adds a cache that grows with each row's document (models/growth.py). It goes into a model
call and another comes out; the one passed in is never changed, unless it was donated.
"""

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, Protocol

import torch
from jaxtyping import Bool
from torch import Tensor

from ..errors import InputError, StateError
from ..mixers import MixerState
from ..mixers.base import capacity
from ..shapes import Counts
from .growth import slots_of, used_only, with_capacity
from .origin import Origin

if TYPE_CHECKING:
    from .griffin import Griffin

Rows = int | slice | Sequence[int] | Tensor


class HasModel(Protocol):
    """A language model: it has a model."""

    @property
    def model(self) -> "Griffin":
        """The model."""
        ...


class State:
    """What a model has read, per row.

    layers    one NamedTuple of tensors per layer, batch first
    read      (B,) int64: tokens that have gone through the model
    position  (B,) int64: position of the next token in its document
    due       (B,) bool: a document start was marked on padding and meets the next valid token
    pending   (B,) int64 or None: a token of the text that has not gone through the model yet
              (-1: none); the next call feeds it first
    longest   no row's position exceeds it, known without asking the device; None: not known
    """

    def __init__(
        self,
        layers: tuple[MixerState, ...],
        read: Counts,
        position: Counts,
        due: Tensor,
        origin: Origin,
        pending: Counts | None = None,
        longest: int | None = None,
    ) -> None:
        self._layers: tuple[MixerState, ...] | None = layers
        self.read, self.position, self.due = read, position, due
        self.pending, self.origin, self.longest = pending, origin, longest

    def __repr__(self) -> str:
        if self._layers is None:
            return "State(donated)"
        return f"State(tokens={self.tokens.tolist()}, {self.nbytes} bytes, {self.device})"

    @property
    def layers(self) -> tuple[MixerState, ...]:
        """The layers' states. Raises StateError once this state was donated."""
        if self._layers is None:
            raise StateError(
                "this state was donated to a model call, which reused its memory; go on with the "
                "state that the call returned, or clone() before donating"
            )
        return self._layers

    @property
    def tokens(self) -> Counts:
        """(B,) int64: tokens read, a pending one included."""
        _ = self.layers
        return self.read if self.pending is None else self.read + (self.pending >= 0)

    @property
    def batch_size(self) -> int:
        """Rows."""
        return self.read.shape[0]

    @property
    def device(self) -> torch.device:
        """Where the tensors lie."""
        return self.read.device

    @property
    def nbytes(self) -> int:
        """Bytes that all tensors occupy: their capacity.

        The same from the first token on, but for growing caches: those take theirs in steps.
        """
        return sum(tensor.numel() * tensor.element_size() for tensor in self._tensors())

    @property
    def bytes_per_token(self) -> int:
        """Bytes that a row's state grows by with each token of a document; 0: its size is fixed."""
        return sum(
            tensor.shape[2:].numel() * tensor.element_size()
            for layer in self.layers
            if capacity(layer) is not None
            for tensor in layer
        )

    def __len__(self) -> int:
        return self.batch_size

    def __getitem__(self, rows: Rows) -> "State":
        """A copy of some rows, in that order, repeats allowed: index, slice, list or mask.

        Growing caches keep their capacity, also where a short row is picked: see `compact`.
        """
        index = self._index(rows)
        return self._map(lambda tensor: tensor[index])

    def narrow(self, begin: int, end: int) -> "State":
        """Some neighbouring rows, as a view: what is written to it is written to this state.

        For a pool of rows of which some move on: `pool.put(slice(begin, end), after)` takes back
        what a model call made of them, and copies only what the call did not write in place.
        """
        if not 0 <= begin <= end <= self.batch_size:
            raise InputError(f"no rows {begin} to {end} in a state of {self.batch_size}")
        return self._map(lambda tensor: tensor[begin:end])

    @classmethod
    def concat(cls, states: Sequence["State"]) -> "State":
        """The rows of several states of one model, one below the other.

        Growing caches get the capacity of the largest.
        """
        if not states:
            raise InputError("State.concat needs at least one state")
        first = states[0]
        for other in states[1:]:
            first._same_kind(other)
        if any(state.pending is not None for state in states):
            states = [state._with_pending_column() for state in states]
        slots = max(slots_of(state.layers) or 0 for state in states)
        states = [state._with_capacity(slots) for state in states]
        columns = zip(*(state._tensors() for state in states), strict=True)
        joined = [torch.cat(column) for column in columns]
        return states[0]._rebuild(joined)

    def put(self, rows: Rows, other: "State") -> "State":
        """Writes the rows of `other` over these rows, in place, and returns this state.

        Growing caches with less room than those of `other` are replaced by larger ones.
        """
        self._same_kind(other)
        index = self._index(rows)
        if index.numel() != other.batch_size:
            raise StateError(f"put: {index.numel()} rows named, {other.batch_size} given")
        if other.pending is not None or self.pending is not None:
            self.pending = self._with_pending_column().pending
            other = other._with_pending_column()
        slots = max(slots_of(self.layers) or 0, slots_of(other.layers) or 0)
        self._layers, other = with_capacity(self.layers, slots), other._with_capacity(slots)
        self.longest = None
        with torch.no_grad():
            for mine, theirs in zip(self._tensors(), other._tensors(), strict=True):
                if not isinstance(rows, slice):
                    mine[index] = theirs.to(mine.device)
                elif not _same_memory(mine[rows], theirs):  # else a view, written in place
                    mine[rows].copy_(theirs)
        return self

    def with_pending(self, tokens: Counts | Sequence[int]) -> "State":
        """The same state with one token per row still to be fed (-1: none). Shares memory."""
        column = torch.as_tensor(tokens, dtype=torch.int64).to(self.device)
        if column.shape != self.read.shape:
            raise InputError(
                f"with_pending: {self.batch_size} tokens wanted, got {tuple(column.shape)}"
            )
        if self.pending is not None and bool((self.pending >= 0).any()):
            raise StateError("with_pending: a token is pending already; feed it first")
        copy = self._map(lambda tensor: tensor)
        copy.pending = column
        return copy

    def clone(self) -> "State":
        """A copy in memory of its own."""
        return self._map(torch.clone)

    def compact(self) -> "State":
        """A copy whose growing caches hold what their rows can still see and no more.

        Other states are just copied. Two states that mean the same have equal compact tensors.
        """
        copy = self.clone()
        copy._layers = used_only(self.layers, self.position)
        return copy

    def detach(self) -> "State":
        """The same values, cut off from the graph of gradients. Shares memory."""
        return self._map(torch.Tensor.detach)

    def to(self, device: torch.device | str) -> "State":
        """The state on another device."""
        return self._map(lambda tensor: tensor.to(device))

    def save(self, path: str | PathLike[str], note: Mapping[str, object] | None = None) -> None:
        """Writes one safetensors file; whatever happens, `path` is the old or the new one.

        Of growing caches it holds what was read, not the capacity. note: a few words kept with it,
        which `models.state_file.read_note` gives back.
        """
        from .state_file import save_state

        save_state(self, path, note)

    @classmethod
    def load(cls, path: str | PathLike[str], lm: "HasModel | Griffin") -> "State":
        """Reads a state of this very model and vocabulary; refused with the reason otherwise."""
        from .state_file import load_state

        return load_state(path, getattr(lm, "model", lm))  # pyright: ignore[reportArgumentType]

    def donate(self) -> None:
        """Gives the memory away: every later use raises."""
        self._layers = None

    # ---- inside

    def _tensors(self) -> list[Tensor]:
        tensors = [tensor for layer in self.layers for tensor in layer]
        tensors += [self.read, self.position, self.due]
        return tensors if self.pending is None else [*tensors, self.pending]

    def _rebuild(self, tensors: Sequence[Tensor]) -> "State":
        left = iter(tensors)
        layers = tuple(type(layer)(*(next(left) for _ in layer)) for layer in self.layers)
        return type(self)(layers, next(left), next(left), next(left), self.origin, next(left, None))

    def _map(self, change: Callable[[Tensor], Tensor]) -> "State":
        return self._rebuild([change(tensor) for tensor in self._tensors()])

    def _with_capacity(self, slots: int) -> "State":
        """The same state; its growing caches have this many slots. Shares memory."""
        copy = self._map(lambda tensor: tensor)
        copy._layers = with_capacity(copy.layers, slots)
        return copy

    def _with_pending_column(self) -> "State":
        copy = self._map(lambda tensor: tensor)
        if copy.pending is None:
            copy.pending = torch.full_like(self.read, -1)
        return copy

    def _index(self, rows: Rows) -> Tensor:
        every = torch.arange(self.batch_size, device=self.device)
        try:
            if isinstance(rows, int):
                rows = [rows]
            if not isinstance(rows, slice | Tensor):
                rows = torch.tensor(list(rows), dtype=torch.int64, device=self.device)
            return every[rows]
        except (IndexError, TypeError, RuntimeError) as error:
            raise InputError(f"no such rows in a state of {self.batch_size}: {rows!r}") from error

    def _same_kind(self, other: "State") -> None:
        def kinds(state: State) -> list[Any]:
            def row(layer: MixerState, tensor: Tensor) -> Any:
                return tensor.shape[1 if capacity(layer) is None else 2 :], tensor.dtype

            return [(type(layer), [row(layer, t) for t in layer]) for layer in state.layers]

        same = self.origin is other.origin or self.origin.model() == other.origin.model()
        if not same or kinds(self) != kinds(other):
            raise StateError("these states belong to different models or have different shapes")


def _same_memory(left: Tensor, right: Tensor) -> bool:
    return (
        left.shape == right.shape
        and left.stride() == right.stride()
        and left.untyped_storage().data_ptr() == right.untyped_storage().data_ptr()
        and left.storage_offset() == right.storage_offset()
    )


def empty_rows(batch: int, device: torch.device) -> tuple[Counts, Counts, Bool[Tensor, " B"]]:
    """read, position and due of rows that have read nothing."""
    none = torch.zeros(batch, dtype=torch.int64, device=device)
    return none, none.clone(), torch.zeros(batch, dtype=torch.bool, device=device)
