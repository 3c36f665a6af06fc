"""Documents of all lengths into rows of one length: best fit into a bounded number of open bins.

A row's tokens are inputs, each with the next token of its document as target, so the last token of
a document is only ever a target and takes no place. Which document comes next is `order.Order`;
which row it goes to depends on the lengths alone, so every rank packs the same rows and reads its
own.
"""

import bisect
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch

from ...errors import ConfigError, DataError
from ..batch import Batch
from .order import Order

SPLITS = ("split", "cut")


@runtime_checkable
class Documents(Protocol):
    """What can be packed: `prepared.Shards`, or rows with answers."""

    def __len__(self) -> int:
        """How many documents."""
        ...

    @property
    def identity(self) -> str:
        """The same text for the same documents in the same order."""
        ...

    def size(self, document: int) -> int:
        """Tokens of a document, BOS included."""
        ...

    def read(self, document: int, start: int, stop: int) -> npt.NDArray[Any]:
        """Some of its ids, any integer dtype."""
        ...

    def counts(self, document: int, start: int, stop: int) -> npt.NDArray[np.bool_] | None:
        """Which of these ids count in the loss as targets; None: all."""
        ...


class Piece(NamedTuple):
    """Inputs of one document that stand in one row."""

    document: int
    start: int  # in the document
    length: int


Row = list[Piece]


class Packer:
    """Rows without end, one at a time.

    A piece goes to the open bin where it leaves the least room. Where it fits nowhere it opens a
    bin; where `bins` are open already, the fullest is handed out as it is, its rest padding. A bin
    without room is handed out at once. Open bins stay open across epochs.

    Args:
        documents: what is packed.
        length: tokens of a row (T).
        seed: of the order.
        split: of documents longer than a row: "split", into pieces that each begin like a document
            (no state is carried), no target lost; or "cut", only the first piece is taken.
        bins: open at most.

    Raises:
        ConfigError: an unknown split policy, or length or bins below 1.
        DataError: no document has two tokens.

    """

    def __init__(
        self, documents: Documents, length: int, seed: int, split: str = "split", bins: int = 256
    ) -> None:
        if split not in SPLITS:
            raise ConfigError(f"split must be {' or '.join(SPLITS)}, not {split!r}")
        if length < 1 or bins < 1:
            raise ConfigError(f"rows of {length} tokens in {bins} bins: both must be 1 or more")
        if not any(documents.size(place) > 1 for place in range(len(documents))):
            raise DataError("no document has two tokens, so there is nothing to predict")
        self.documents, self.length, self.split, self.bins = documents, length, split, bins
        self.seed, self._order = seed, Order(len(documents), seed)
        self.position = 0
        """Documents taken from the order so far, all epochs together."""
        self._start = 0  # inputs of the next document that are packed already
        self._serial = 0  # of the next bin; it decides between bins of equal room
        self._open: list[tuple[int, int, Row]] = []  # room, serial, pieces; sorted

    @property
    def epoch(self) -> float:
        """How often the documents have been gone through."""
        return self.position / len(self.documents)

    def next_row(self) -> Row:
        """The next row's pieces, in their order."""
        while True:
            if (row := self._place(self._next_piece())) is not None:
                return row

    def _next_piece(self) -> Piece:
        while True:
            document = self._order[self.position]
            inputs = self.documents.size(document) - 1
            piece = Piece(document, self._start, min(inputs - self._start, self.length))
            self._start += self.length
            if self.split == "cut" or self._start >= inputs:
                self.position, self._start = self.position + 1, 0
            if piece.length > 0:
                return piece

    def _place(self, piece: Piece) -> Row | None:
        """Puts a piece into a bin; a row where one is complete by that."""
        if piece.length == self.length:
            return [piece]
        at = bisect.bisect_left(self._open, piece.length, key=lambda entry: entry[0])
        if at < len(self._open):
            room, serial, row = self._open.pop(at)
            row.append(piece)
            if room == piece.length:
                return row
            bisect.insort(self._open, (room - piece.length, serial, row))
            return None
        evicted = self._open.pop(0)[2] if len(self._open) == self.bins else None
        bisect.insort(self._open, (self.length - piece.length, self._serial, [piece]))
        self._serial += 1
        return evicted

    def to_dict(self) -> dict[str, Any]:
        """The cursor, with the half-filled bins; plain values."""
        return {
            "version": 1,
            "settings": self._settings(),
            "position": self.position,
            "start": self._start,
            "serial": self._serial,
            "open": [
                {"serial": serial, "pieces": [list(piece) for piece in row]}
                for _, serial, row in self._open
            ],
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Goes on from a cursor.

        Raises:
            DataError: it belongs to other documents, or to other settings; they are named.

        """
        settings = self._settings()
        for name, value in settings.items():
            if (before := saved["settings"].get(name)) != value:
                raise DataError(
                    f"the checkpoint's data was packed with {name} {before!r}, this run's is with "
                    f"{value!r}; resume with the same, or begin anew"
                )
        self.position, self._start = saved["position"], saved["start"]
        self._serial = saved["serial"]
        self._open = []
        for entry in saved["open"]:
            row = [Piece(*piece) for piece in entry["pieces"]]
            room = self.length - sum(piece.length for piece in row)
            bisect.insort(self._open, (room, entry["serial"], row))

    def _settings(self) -> dict[str, Any]:
        """What a cursor means something for."""
        return {
            "documents": self.documents.identity,
            "length": self.length,
            "seed": self.seed,
            "split": self.split,
            "bins": self.bins,
        }


def batch_of(rows: list[Row], documents: Documents, length: int) -> Batch:
    """Reads the tokens of some rows: a batch of (len(rows), length), padded at the right with 0.

    Every piece begins with a start. The weight is 1 where the target counts, else 0.
    """
    shape = (len(rows), length)
    tokens, targets = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    starts, valid = np.zeros(shape, np.bool_), np.zeros(shape, np.bool_)
    weight = np.zeros(shape, np.float32)
    for number, row in enumerate(rows):
        at = 0
        for document, start, size in row:
            ids = documents.read(document, start, start + size + 1)
            counts = documents.counts(document, start + 1, start + size + 1)
            span = slice(at, at + size)
            tokens[number, span], targets[number, span] = ids[:-1], ids[1:]
            starts[number, at] = True
            valid[number, span] = True
            weight[number, span] = 1.0 if counts is None else counts
            at += size
    return Batch(
        tokens=torch.from_numpy(tokens),
        starts=torch.from_numpy(starts),
        valid=torch.from_numpy(valid),
        targets=torch.from_numpy(targets),
        weight=torch.from_numpy(weight),
    )
