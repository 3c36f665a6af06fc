"""What passes between whoever supplies the data and the trainer: batches, feeds, the world."""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor


class Batch(NamedTuple):
    """One micro-batch.

    tokens   (B, T) int64
    starts   (B, T) bool: first token of a document
    valid    (B, T) bool: padding is False
    targets  (B, T) int64: the next token of the same document; anything where weight is 0
    weight   (B, T) fp32; 0: does not count (prompts, padding, the last token of a document)
    window   (B,) int64: shorter attention windows (window dropout), or None
    labels   the feed's own, handed back to it by `observe`
    carries  rows continue those of the feed's previous batch: the state is carried
    """

    tokens: Tensor
    starts: Tensor
    valid: Tensor
    targets: Tensor
    weight: Tensor
    window: Tensor | None = None
    labels: Any = None
    carries: bool = False

    def to(self, device: torch.device) -> "Batch":
        """On a device; the labels stay where they are."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True), self.window)

    def part(self, rows: slice, span: slice) -> "Batch":
        """Some rows, and a span of time of them."""
        window = None if self.window is None else self.window[rows]
        return self._map(lambda tensor: tensor[rows, span], window)

    def _map(self, change: Any, window: Tensor | None) -> "Batch":
        tensors = {name: change(getattr(self, name)) for name in self._fields[:5]}
        device = tensors["tokens"].device
        return self._replace(**tensors, window=None if window is None else window.to(device))


@runtime_checkable
class Feed(Protocol):
    """What supplies batches; its position is part of every checkpoint."""

    def take(self, share: float) -> Batch:
        """The next micro-batch of this rank; share: how much of the run is done, 0 to 1."""
        ...

    def observe(self, batch: Batch, loss: Tensor, right: Tensor) -> str | None:
        """Told after the update how a batch went; a line to print, or None.

        loss: (B, T) fp32, each token's; right: (B, T) bool, the target had the largest logit. Where
        the weight is 0 they are 0 and False.
        """
        ...

    def to_dict(self) -> dict[str, Any]:
        """Where it stands: plain values and tensors only, as `weights_only` loading takes them."""
        ...

    def restore(self, saved: dict[str, Any]) -> None:
        """The inverse of to_dict."""
        ...


@runtime_checkable
class Located(Protocol):
    """A feed that can say where its latest batch came from, for messages."""

    def where(self) -> str:
        """Such as "epoch 2, documents 1840 to 1855"."""
        ...


@runtime_checkable
class Reporting(Protocol):
    """A feed with figures of its own for the log."""

    def figures(self) -> dict[str, float | int]:
        """The same names at every call; columns of the CSV."""
        ...


class World(NamedTuple):
    """This process among those that train one model together; size 1: alone."""

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")
