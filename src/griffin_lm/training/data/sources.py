"""Text files as they come: .txt and .jsonl, also .gz and .bz2, and folders of them."""

import bz2
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from ...errors import DataError, GriffinError
from .rows import Row, parse_row

PACKED = {".gz", ".bz2"}
KINDS = (".txt", ".jsonl")
PIECE = 1 << 20  # characters of a text file read at once

Told = Callable[[int], None]


class BadLines:
    """Counts malformed lines, keeps the first messages, and stops past a limit."""

    SHOWN = 5

    def __init__(self, limit: int) -> None:
        self.limit, self.count = limit, 0
        self.messages: list[str] = []

    def add(self, path: Path, line: int, reason: object) -> None:
        """Notes one; DataError with the first ones where there are more than the limit."""
        self.count += 1
        message = f"{path}, line {line}: {reason}"
        if len(self.messages) < self.SHOWN:
            self.messages.append(message)
        if self.count > self.limit:
            first = "\n  ".join(dict.fromkeys([*self.messages, message]))
            raise DataError(
                f"more than {self.limit} malformed lines; mend them, or allow more (--max-bad):"
                f"\n  {first}"
            )


def kind_of(path: Path) -> str | None:
    """Says ".txt" or ".jsonl", whatever it is compressed with; None for another kind of file."""
    name = path.with_suffix("") if path.suffix.lower() in PACKED else path
    return name.suffix.lower() if name.suffix.lower() in KINDS else None


def find_sources(source: Path) -> list[Path]:
    """The files of a source, a file or a folder with all its folders, in order of their names.

    Hidden files and other kinds are passed over. Raises DataError where there is nothing.
    """
    if source.is_dir():
        inner = (path.relative_to(source) for path in source.rglob("*") if path.is_file())
        seen = [path for path in inner if not any(part.startswith(".") for part in path.parts)]
        found = [source / path for path in sorted(seen, key=Path.as_posix) if kind_of(path)]
        if not found:
            raise DataError(f"{source}: no .txt or .jsonl file (also .gz, .bz2) in this folder")
    elif not source.is_file():
        raise DataError(f"{source}: no such file or folder")
    elif kind_of(source) is None:
        raise DataError(f"{source}: not a .txt or .jsonl file (also .gz, .bz2); rename or convert")
    else:
        found = [source]
    for path in found:
        if path.stat().st_size == 0:
            raise DataError(f"{path}: the file is empty; fill it or take it away")
    return found


def read_rows(path: Path, bad: BadLines, told: Told) -> Iterator[tuple[int, Row]]:
    """Line number and row of every good line of a .jsonl file; the others go to `bad`.

    told: called now and then with the bytes of the file read so far.
    """
    with _Opened(path, told) as file:
        for number, line in enumerate(file, 1):
            data = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if not data.strip():
                continue
            try:
                yield number, parse_row(json.loads(data.decode("utf-8")))
            except UnicodeDecodeError as error:
                bad.add(path, number, f"not UTF-8 (byte {error.start} of the line)")
            except (ValueError, RecursionError) as error:
                bad.add(path, number, f"not JSON ({error})")
            except DataError as error:
                bad.add(path, number, error)


def read_pieces(path: Path, told: Told) -> Iterator[str]:
    """The text of a .txt file as it stands, in pieces; DataError where it is not UTF-8."""
    with _Opened(path, told) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")  # pyright: ignore[reportArgumentType]
        try:
            while piece := text.read(PIECE):
                yield piece
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: not UTF-8 ({error.reason}); convert it") from error


class _Opened:
    """A file opened through its compression; what goes wrong in it is a DataError with its name."""

    def __init__(self, path: Path, told: Told) -> None:
        self.path, self.told = path, told

    def __enter__(self) -> io.BufferedIOBase:
        try:
            self.raw = open(self.path, "rb")
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read ({error.strerror or error})") from error
        counted = io.BufferedReader(_Counted(self.raw, self.told), 1 << 16)
        if self.path.suffix.lower() == ".bz2":
            return bz2.BZ2File(counted)
        if self.path.suffix.lower() == ".gz":
            return gzip.GzipFile(fileobj=counted)
        return counted

    def __exit__(self, kind: object, error: BaseException | None, at: object) -> None:
        self.raw.close()
        if isinstance(error, (EOFError, OSError, zlib.error)) and not isinstance(
            error, GriffinError
        ):
            raise DataError(
                f"{self.path}: cannot be read to its end ({error}); copy it again"
            ) from error


class _Counted(io.RawIOBase):
    """A file that tells how far it has been read."""

    def __init__(self, file: io.BufferedReader, told: Told) -> None:
        self.file, self.told, self.done = file, told, 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        """As a file's."""
        data = self.file.read(len(buffer))
        buffer[: len(data)] = data
        self.done += len(data)
        self.told(self.done)
        return len(data)
