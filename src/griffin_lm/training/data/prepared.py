"""A folder of token files with its index, or one token file, as one list of documents."""

import bisect
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import DataError
from .shards import SUFFIX, Progress, TokenFile

INDEX = "index.json"


class Shards:
    """All documents of some token files, in the order of the files.

    Raises:
        DataError: a file that does not open; files made with several tokenizers.

    """

    def __init__(self, files: list[TokenFile], where: Path) -> None:
        if not files:
            raise DataError(f"{where}: no token files; make them with griffin data prepare")
        self.files, self.where = files, where
        self.fingerprint = files[0].header.fingerprint
        """Of the tokenizer."""
        for file in files[1:]:
            if file.header.fingerprint != self.fingerprint:
                raise DataError(f"{file.path}: made with another tokenizer than {files[0].path}")
        self._first = [0]
        for file in files:
            self._first.append(self._first[-1] + len(file))
        self.tokens = sum(file.header.tokens for file in files)
        self.largest = max(file.header.largest for file in files)
        """The largest id: a model needs more rows than that."""

    def __len__(self) -> int:
        return self._first[-1]

    @property
    def identity(self) -> str:
        """SHA-256 (hex) over the files' hashes: the same for the same documents in this order."""
        return hashlib.sha256("".join(f.header.sha256 for f in self.files).encode()).hexdigest()

    def size(self, document: int) -> int:
        """How many tokens a document has, BOS included."""
        file, place = self._find(document)
        return int(file.offsets[place + 1]) - int(file.offsets[place])

    def read(self, document: int, start: int, stop: int) -> npt.NDArray[Any]:
        """Some ids of a document: a view of the file, uint16 or uint32."""
        file, place = self._find(document)
        return file.document(place)[start:stop]

    def counts(self, document: int, start: int, stop: int) -> npt.NDArray[np.bool_] | None:
        """None: every token counts in the loss."""
        return None

    def _find(self, document: int) -> tuple[TokenFile, int]:
        at = bisect.bisect_right(self._first, document) - 1
        return self.files[at], document - self._first[at]


def open_shards(path: str | os.PathLike[str]) -> Shards:
    """Opens a token file, or a folder that `griffin data prepare` has completed.

    Raises:
        DataError: nothing there, not complete, or damaged; the file and the reason are named.

    """
    path = Path(path)
    if not path.is_dir():
        return Shards([TokenFile(path)], path)
    index = read_index(path)
    files: list[TokenFile] = []
    for entry in index["files"]:
        file = TokenFile(path / entry["name"])
        if file.header.sha256 != entry["sha256"]:
            raise DataError(
                f"{file.path}: not the file that {INDEX} names; "
                "copy the whole folder again, or prepare the text again"
            )
        files.append(file)
    return Shards(files, path)


def read_index(folder: Path) -> dict[str, Any]:
    """The index of a prepared folder; it is written last, so a folder without it is not complete.

    Raises:
        DataError: not there, or damaged.

    """
    path = folder / INDEX
    try:
        index = json.loads(path.read_bytes())
    except FileNotFoundError:
        what = (
            "preparing it was not finished" if any(folder.glob("*" + SUFFIX)) else "no token files"
        )
        raise DataError(f"{folder}: {what}; run griffin data prepare") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: damaged ({error}); prepare the text again") from error
    names = [name for name in _entries(index) if name.endswith(SUFFIX) and Path(name).name == name]
    if not names or len(names) != len(_entries(index)) or len(set(names)) != len(names):
        raise DataError(f"{path}: damaged: not a list of token files; prepare the text again")
    return index


def verify(path: Path, progress: Progress | None = None) -> Shards:
    """Opens a token file or a folder and compares every byte with the hashes; DataError else."""
    shards = open_shards(path)
    whole = sum(file.header.file_bytes for file in shards.files)
    before = 0
    for file in shards.files:
        file.verify(progress and (lambda done, _, before=before: progress(before + done, whole)))
        before += file.header.file_bytes
    return shards


def _entries(index: Any) -> list[str]:
    """The names in an index; none where it has another form."""
    try:
        return (
            [
                entry["name"]
                for entry in index["files"]
                if isinstance(entry["name"], str) and isinstance(entry["sha256"], str)
            ]
            if index["format"] == "griffin-lm tokens"
            else []
        )
    except (KeyError, TypeError):
        return []
