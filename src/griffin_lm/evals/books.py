"""Books as a source of text: `*.jsonl`, `.jsonl.bz2` or `.jsonl.gz`, one object a line."""

import bz2
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ..errors import DataError


class Book(NamedTuple):
    """One document of the source."""

    id: str
    title: str
    text: str


def read_books(folder: Path) -> Iterator[Book]:
    """Every book of every source in a folder (or of one file), in the order of the files' names."""
    endings = (".jsonl", ".jsonl.bz2", ".jsonl.gz")
    files = [folder] if folder.is_file() else sorted(folder.glob("*"))
    files = [file for file in files if file.name.endswith(endings)]
    if not files:
        raise DataError(f"{folder} holds no .jsonl, .jsonl.bz2 or .jsonl.gz; see --data")
    for file in files:
        opened = {".bz2": bz2.open, ".gz": gzip.open}.get(file.suffix, open)
        with opened(file, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    row = json.loads(line)
                    yield Book(str(row["id"]), str(row.get("title", row["id"])), row["text"])
                except (json.JSONDecodeError, KeyError, TypeError) as error:
                    raise DataError(
                        f"{file}, line {number}: not an object with id and text ({error})"
                    ) from error
