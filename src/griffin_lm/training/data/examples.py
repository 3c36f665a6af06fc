"""Rows with answers, in memory: what fine-tuning packs."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import DataError, InputError
from ...text.chat import TurnTemplate
from ...text.tokenizer import Tokenizer
from .rows import Example, encode_row, require_answer
from .shards import Progress
from .sources import BadLines, find_sources, kind_of, read_rows


class Examples:
    """Encoded rows as `packing.Documents`: only answers count in the loss.

    Raises:
        DataError: there are none.

    """

    def __init__(self, examples: Iterable[Example]) -> None:
        kept = list(examples)
        if not kept:
            raise DataError("no rows to learn from")
        self._ids = np.concatenate([np.asarray(each.ids, np.int32) for each in kept])
        self._answer = np.concatenate([np.asarray(each.answer, np.bool_) for each in kept])
        self._offsets = np.cumsum([0, *(len(each.ids) for each in kept)])
        self.malformed = 0
        """Lines that were left out."""
        self.conversations = 0
        """Rows that are turns."""

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @property
    def identity(self) -> str:
        """SHA-256 (hex) over ids, answers and where rows begin."""
        digest = hashlib.sha256(b"griffin-lm examples 1\n")
        for part in (self._ids.astype("<i4"), self._answer, self._offsets.astype("<i8")):
            digest.update(part.tobytes())
        return digest.hexdigest()

    @property
    def answers(self) -> int:
        """Tokens that count, of all rows together."""
        return int(self._answer.sum())

    def size(self, document: int) -> int:
        """Tokens of a row, BOS included."""
        return int(self._offsets[document + 1] - self._offsets[document])

    def read(self, document: int, start: int, stop: int) -> npt.NDArray[Any]:
        """Some ids of a row, int32."""
        return self._ids[self._span(document, start, stop)]

    def counts(self, document: int, start: int, stop: int) -> npt.NDArray[np.bool_]:
        """Which of these ids are answers."""
        return self._answer[self._span(document, start, stop)]

    def unanswered(self, length: int) -> list[int]:
        """Rows without an answer among their first `length` targets: useless if cut there."""
        return [row for row in range(len(self)) if not self.counts(row, 1, length + 1).any()]

    def without(self, rows: Iterable[int]) -> "Examples":
        """The others, in their order. Raises DataError where none is left."""
        gone = set(rows)
        kept = [row for row in range(len(self)) if row not in gone]
        made = Examples(
            Example(self.read(row, 0, size).tolist(), self.counts(row, 0, size).tolist())
            for row in kept
            for size in (self.size(row),)
        )
        made.malformed, made.conversations = self.malformed, self.conversations
        return made

    def _span(self, document: int, start: int, stop: int) -> slice:
        begin, end = int(self._offsets[document]), int(self._offsets[document + 1])
        return slice(min(begin + start, end), min(begin + stop, end))


def read_examples(
    source: Path,
    tokenizer: Tokenizer,
    template: TurnTemplate | None = None,
    *,
    max_bad: int = 10,
    progress: Progress | None = None,
) -> Examples:
    """Reads and encodes .jsonl files (also .gz, .bz2), or a folder of them.

    Args:
        source: the file or folder.
        tokenizer: the model's.
        template: see `rows.encode_row`.
        max_bad: malformed lines, rows without an answer among them, that are left out.
        progress: told (bytes read, bytes in all).

    Raises:
        DataError: nothing to read, an empty file, a .txt file, or too many malformed lines, which
            are named by file and number.

    """
    paths = find_sources(source)
    sizes = [path.stat().st_size for path in paths]
    bad = BadLines(max_bad)
    examples: list[Example] = []
    conversations = 0
    for place, path in enumerate(paths):
        if kind_of(path) != ".jsonl":
            raise DataError(f"{path}: rows come from .jsonl files; plain text is for pretraining")
        before = sum(sizes[:place])

        def told(done: int, before: int = before) -> None:
            if progress is not None:
                progress(before + done, sum(sizes))

        known = len(examples)
        for number, row in read_rows(path, bad, told):
            try:
                require_answer(row)
                examples.append(encode_row(row, tokenizer, template))
                conversations += bool(row.turns)
            except (DataError, InputError) as error:
                bad.add(path, number, error)
        if len(examples) == known:
            first = f": {bad.messages[-1]}" if bad.messages else ""
            raise DataError(f"{path}: no row with an answer in it{first}")
    found = Examples(examples)
    found.malformed, found.conversations = bad.count, conversations
    return found
