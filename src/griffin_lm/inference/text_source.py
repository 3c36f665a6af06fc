"""Where a text that is read comes from: a file, or a stream such as standard input."""

import hashlib
import os
import select
import stat
from pathlib import Path
from typing import Protocol, runtime_checkable

from ..errors import InputError

BLOCK = 1 << 16  # bytes in a read
PAUSE = 0.25  # seconds without a byte after which a stream counts as paused


@runtime_checkable
class Stream(Protocol):
    """Bytes that come in order; with a file descriptor, or in memory."""

    def read(self, size: int = -1, /) -> bytes:
        """At most so many bytes; b"" at the end."""
        ...

    def fileno(self) -> int:
        """The descriptor; OSError where there is none."""
        ...


class TextSource:
    """Bytes of a text, in order, with a running SHA-256 of all of them.

    source   a path, or an open binary stream; a path that is no regular file is a stream too
    name     what the source is called in messages and notes

    Raises `InputError` where a file can't be opened.
    """

    def __init__(self, source: Path | Stream, name: str = "") -> None:
        self.size: int | None = None
        """Bytes in all, where that is known."""
        if isinstance(source, Path):
            name = name or source.name
            try:
                self._opened = open(source, "rb")  # noqa: SIM115
                status = os.fstat(self._opened.fileno())
            except OSError as error:
                raise InputError(f"can't read {source}: {error.strerror}") from error
            if stat.S_ISREG(status.st_mode):
                self.size = status.st_size
            self._file: Stream = self._opened
        else:
            self._opened, self._file = None, source
        self.name = name or "-"
        self.seen = 0
        """Bytes read so far."""
        self._hash = hashlib.sha256()
        self._again = b""
        try:
            self._descriptor: int | None = self._file.fileno()
        except (OSError, AttributeError):
            self._descriptor = None  # bytes in memory

    @property
    def is_stream(self) -> bool:
        """Whether it can pause, and be read once only."""
        return self.size is None

    def digest(self) -> str:
        """SHA-256, in hex, of the bytes read so far."""
        return self._hash.hexdigest()

    def read(self) -> bytes | None:
        """The next bytes; b"" at the end; None where a stream pauses.

        Raises `InputError` where reading fails.
        """
        if self._again:
            data, self._again = self._again, b""
            return data
        try:
            if self._descriptor is None:
                data = self._file.read(BLOCK)
            else:
                if self.is_stream and not select.select([self._descriptor], [], [], PAUSE)[0]:
                    return None
                data = os.read(self._descriptor, BLOCK)
        except (OSError, ValueError) as error:
            raise InputError(f"reading {self.name} failed: {error}") from error
        self._hash.update(data)
        self.seen += len(data)
        return data

    def goes_on_from(self, seen: int, digest: str, place: int) -> bool:
        """Whether the source begins with these `seen` bytes; it then stands at byte `place`.

        To be asked before anything was read; place <= seen. Where the answer is no, a stream has
        been read in part and cannot be used any more.
        """
        if self.size is not None and self.size < seen:
            return False
        kept = bytearray()
        while self.seen < seen:
            data = self._read_up_to(seen - self.seen)
            if not data:
                return False
            kept += data[max(0, place - (self.seen - len(data))) :]
        self._again = bytes(kept)
        return self.digest() == digest

    def rewind(self) -> None:
        """Back to the first byte, of a file."""
        if self._descriptor is not None:
            os.lseek(self._descriptor, 0, os.SEEK_SET)
        self.seen, self._again, self._hash = 0, b"", hashlib.sha256()

    def close(self) -> None:
        """Closes a file that was opened here."""
        if self._opened is not None:
            self._opened.close()

    def _read_up_to(self, count: int) -> bytes:
        count = min(count, BLOCK)
        try:
            data = (
                self._file.read(count)
                if self._descriptor is None
                else os.read(self._descriptor, count)
            )
        except OSError as error:
            raise InputError(f"reading {self.name} failed: {error}") from error
        self._hash.update(data)
        self.seen += len(data)
        return data
