"""Where tensors come from: what every kind of file of weights looks like from outside."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from .names import Shape


@runtime_checkable
class Source(Protocol):
    """Named tensors on disk. What it claims was held against the files before anything is read."""

    @property
    def where(self) -> Path:
        """What messages name: the file, or the index or folder of several."""
        ...

    @property
    def shapes(self) -> Mapping[str, Shape]:
        """The shape of every tensor, by the file's names."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors, uncompressed."""
        ...

    @property
    def files(self) -> Sequence[Path]:
        """The files that hold them."""
        ...

    @property
    def mapped(self) -> bool:
        """Whether `get` gives views of the files; else tensors of their own, made by each call."""
        ...

    def dtype(self, name: str) -> torch.dtype:
        """The dtype in the file."""
        ...

    def get(self, name: str) -> Tensor:
        """A tensor, not to be written to; raises CheckpointCorrupt where its bytes are damaged."""
        ...


class Outgoing(NamedTuple):
    """A tensor to be written: made only when its turn comes, so that one is held at a time.

    packed: it is part of a quantised matrix.
    """

    name: str
    shape: Shape
    dtype: torch.dtype
    make: Callable[[], Tensor]
    packed: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize
