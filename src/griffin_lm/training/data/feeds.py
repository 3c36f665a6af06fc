"""Packed documents as a feed: what `griffin pretrain` takes its batches from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ...errors import DataError
from ...text import load_tokenizer
from ..batch import Batch, World
from ..config import TrainConfig
from .packing import Documents, Packer, Row, batch_of
from .prepared import open_shards

_NAMED = 8  # documents that a message lists


@dataclass(frozen=True, kw_only=True)
class PackedText:
    """A recipe's choice of prepared text (`--data`: a folder of `griffin data prepare`)."""

    split: str = "split"  # documents longer than a row: "split" into rows, or "cut" after the first
    bins: int = 256  # half-filled rows at a time; more leave less padding

    def open(self, config: TrainConfig, data: Path, out: Path, world: World) -> "PackedFeed":
        """Opens the token files; the first rank copies the tokenizer into the run's folder.

        Raises DataError for files that cannot be used or that hold ids past the model's vocabulary,
        TokenizerError for a tokenizer that is not the one they were made with.
        """
        shards = open_shards(data)
        vocab = config.model_config().vocab
        if shards.largest >= vocab:
            raise DataError(
                f"{data}: holds the id {shards.largest}, and the model has {vocab} rows; "
                "prepare the text with the model's tokenizer"
            )
        if world.rank == 0 and data.is_dir():
            tokenizer = load_tokenizer(data)
            if tokenizer.fingerprint != shards.fingerprint:
                raise DataError(
                    f"{data}: its tokenizer is not the one its token files were made by"
                )
            out.mkdir(parents=True, exist_ok=True)
            tokenizer.save(out)
        return PackedFeed(
            shards, config.rows, config.length, config.seed, world, self.split, self.bins
        )


class PackedFeed:
    """Batches of packed rows; row number r + k n of the run is rank r's, of n ranks.

    The cursor is the same on every rank between two steps, and does not depend on how many there
    are: a run may go on with other ranks or rows a batch, and gets the rows that would have come.

    Args:
        documents: what is packed.
        batch: rows of a micro-batch (B).
        length: tokens of a row (T).
        seed: of the order.
        world: this process among all.
        split: see `packing.Packer`.
        bins: see `packing.Packer`.

    """

    def __init__(
        self,
        documents: Documents,
        batch: int,
        length: int,
        seed: int,
        world: World | None = None,
        split: str = "split",
        bins: int = 256,
    ) -> None:
        self.documents, self.batch, self.length = documents, batch, length
        self.world = world or World()
        self.packer = Packer(documents, length, seed, split, bins)
        self.rows = 0
        """Rows packed so far, of all ranks."""
        self._filled = 0  # tokens in them that are not padding
        self._latest: list[Row] = []

    def take(self, share: float) -> Batch:
        """The next micro-batch of this rank."""
        rows = [self.packer.next_row() for _ in range(self.batch * self.world.size)]
        self.rows += len(rows)
        self._filled += sum(piece.length for row in rows for piece in row)
        self._latest = rows[self.world.rank :: self.world.size]
        return batch_of(self._latest, self.documents, self.length)

    def observe(self, batch: Batch, loss: Tensor, right: Tensor) -> str | None:
        """Nothing: the order does not depend on how it goes."""
        return None

    def where(self) -> str:
        """The epoch, and which documents the latest batch was read from."""
        found = list(dict.fromkeys(piece.document for row in self._latest for piece in row))
        more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
        listed = ", ".join(map(str, found[:_NAMED]))
        return f"epoch {int(self.packer.epoch) + 1}, documents {listed}{more}"

    def figures(self) -> dict[str, float | int]:
        """How often the documents have been gone through, and how full the rows are (0 to 1)."""
        whole = self.rows * self.length
        return {"epoch": self.packer.epoch, "filled": self._filled / whole if whole else 1.0}

    def to_dict(self) -> dict[str, Any]:
        """Where it stands, half-filled rows included."""
        return {"packer": self.packer.to_dict(), "rows": self.rows, "filled": self._filled}

    def restore(self, saved: dict[str, Any]) -> None:
        """The inverse of to_dict; DataError where it belongs to other data or settings."""
        self.packer.restore(saved["packer"])
        self.rows, self._filled = saved["rows"], saved["filled"]
