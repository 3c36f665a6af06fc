"""The token file: documents as ids of two or four bytes, opened memory-mapped, checked by hash.

All numbers are little-endian:

    offset  bytes
    0       8      magic: b"griftok\\n"
    8       4      version: 1
    12      4      bytes of an id: 2 or 4
    16      8      number of tokens
    24      8      number of documents
    32      8      largest id
    40      32     fingerprint of the tokenizer (SHA-256 over pieces, ids and special ids)
    72      32     SHA-256 of everything after the header, then of bytes 0 to 71
    104     24     zeros
    128            the ids, then zeros up to a multiple of 8
                   documents + 1 offsets of 8 bytes: where each document begins, in tokens

Every claim of the header is checked against the file's size before it is used, and the offsets
before a document is read; the hash is compared by `verify` alone, since it reads the whole file.
"""

import array
import contextlib
import hashlib
import os
import struct
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ...errors import DataError

MAGIC = b"griftok\n"
VERSION = 1
SUFFIX = ".tokens"
HEADER_BYTES = 128
MAX_TOKENS = 1 << 56  # so that sizes computed from a damaged header stay small integers

_FIELDS = struct.Struct("<8sIIQQQ32s")  # all before the hash
_CHUNK = 1 << 22  # bytes read at once by verify

Progress = Callable[[int, int], None]


class Header(NamedTuple):
    """What the first 128 bytes say."""

    item: int  # bytes of an id
    tokens: int
    documents: int
    largest: int  # id
    fingerprint: str  # hex
    sha256: str  # hex

    @property
    def offsets_at(self) -> int:
        """The byte where the offsets begin."""
        return HEADER_BYTES + (self.tokens * self.item + 7) // 8 * 8

    @property
    def file_bytes(self) -> int:
        """How long the file must be."""
        return self.offsets_at + 8 * (self.documents + 1)

    def pack(self) -> bytes:
        """The bytes before the hash."""
        raw = bytes.fromhex(self.fingerprint)
        return _FIELDS.pack(
            MAGIC, VERSION, self.item, self.tokens, self.documents, self.largest, raw
        )


class TokenFile:
    """One token file, memory-mapped.

    Raises:
        DataError: the file is missing, of another kind or version, or damaged; with its name.

    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        try:
            size = self.path.stat().st_size
            with self.path.open("rb") as file:
                head = file.read(HEADER_BYTES)
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read ({error.strerror or error})") from error
        self.header = _parse(self.path, head, size)
        h = self.header
        kind = np.dtype("<u2" if h.item == 2 else "<u4")
        self.ids: npt.NDArray[Any] = np.memmap(
            self.path, dtype=kind, mode="r", offset=HEADER_BYTES, shape=(h.tokens,)
        )
        self.offsets: npt.NDArray[np.uint64] = np.memmap(
            self.path, dtype="<u8", mode="r", offset=h.offsets_at, shape=(h.documents + 1,)
        )
        first, last = int(self.offsets[0]), int(self.offsets[-1])
        if first != 0 or last != h.tokens or not bool((self.offsets[1:] > self.offsets[:-1]).all()):
            raise DataError(
                f"{self.path}: damaged: the documents' offsets do not rise from 0 to the "
                f"{h.tokens} tokens; {_AGAIN}"
            )

    def __len__(self) -> int:
        return self.header.documents

    def document(self, place: int) -> npt.NDArray[Any]:
        """The ids of a document: a view of the file, (its length,) uint16 or uint32."""
        return self.ids[int(self.offsets[place]) : int(self.offsets[place + 1])]

    def verify(self, progress: Progress | None = None) -> None:
        """Reads the whole file and compares it with its hash; DataError where they differ."""
        digest, done, whole = hashlib.sha256(), HEADER_BYTES, self.header.file_bytes
        with self.path.open("rb") as file:
            head = file.read(HEADER_BYTES)
            while block := file.read(_CHUNK):
                digest.update(block)
                done += len(block)
                if progress is not None:
                    progress(done, whole)
        digest.update(head[: _FIELDS.size])
        if digest.hexdigest() != self.header.sha256 or any(head[_FIELDS.size + 32 :]):
            raise DataError(
                f"{self.path}: damaged: its SHA-256 is not the one in its header; {_AGAIN}"
            )
        largest = max(
            int(self.ids[at : at + _CHUNK].max()) for at in range(0, self.header.tokens, _CHUNK)
        )
        if largest != self.header.largest:
            raise DataError(f"{self.path}: its header says that {largest} is not an id; {_AGAIN}")


_AGAIN = "copy it again, or make it again with griffin data prepare"


def _parse(path: Path, head: bytes, size: int) -> Header:
    """The header, every claim of it checked against the file's size."""
    if head[: len(MAGIC)] != MAGIC:
        what = "empty" if size == 0 else "not a token file"
        raise DataError(f"{path}: {what}; token files are made by griffin data prepare")
    if len(head) < HEADER_BYTES:
        raise DataError(f"{path}: damaged: it ends inside its header; {_AGAIN}")
    _, version, item, tokens, documents, largest, fingerprint = _FIELDS.unpack_from(head)
    if version != VERSION:
        raise DataError(
            f"{path}: version {version} of the token file; this release reads version {VERSION}: "
            "install a newer griffin-lm, or prepare the text again"
        )
    sha256 = head[_FIELDS.size : _FIELDS.size + 32].hex()
    header = Header(item, tokens, documents, largest, fingerprint.hex(), sha256)
    if item not in (2, 4):
        raise DataError(f"{path}: damaged: ids of {item} bytes, where 2 or 4 are known; {_AGAIN}")
    if not 1 <= documents <= tokens <= MAX_TOKENS or largest >= 1 << (8 * item):
        raise DataError(
            f"{path}: damaged: its header claims {documents} documents, {tokens} tokens and "
            f"{largest} as its largest id, which cannot be; {_AGAIN}"
        )
    if header.file_bytes != size:
        raise DataError(
            f"{path}: damaged: {size} bytes, where its header makes it {header.file_bytes}; "
            f"{_AGAIN}"
        )
    return header


class TokenFileWriter:
    """Writes a token file aside; `commit` gives it its name, leaving without it removes it.

    Args:
        path: the file's name at the end.
        fingerprint: the tokenizer's, 64 hexadecimal digits.
        vocab: ids are below it; it decides whether one takes 2 or 4 bytes.

    Raises (all methods):
        DataError: the file cannot be written; with its name.

    """

    def __init__(self, path: Path, fingerprint: str, vocab: int) -> None:
        self.path, self.fingerprint = path, fingerprint
        self.item = 2 if vocab <= 1 << 16 else 4
        self.tokens = self.largest = 0
        self._offsets = array.array("Q", [0])
        self._digest = hashlib.sha256()
        self._aside: str | None = None
        self._file: IO[bytes] | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, self._aside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
            self._file = os.fdopen(handle, "wb")
            self._file.write(bytes(HEADER_BYTES))
        except OSError as error:
            raise self._failed(error) from error

    @property
    def documents(self) -> int:
        """How many stand complete in it."""
        return len(self._offsets) - 1

    def extend(self, ids: Sequence[int]) -> None:
        """Adds ids to the document that is being written."""
        if not ids:
            return
        packed = np.asarray(ids, dtype=np.int64)
        self.largest = max(self.largest, int(packed.max()))
        self.tokens += len(packed)
        self._write(packed.astype("<u2" if self.item == 2 else "<u4").tobytes())

    def end_document(self) -> None:
        """The next ids are another document's. A document without ids is none."""
        if self.tokens > self._offsets[-1]:
            self._offsets.append(self.tokens)

    def commit(self) -> Header:
        """Completes the file, syncs it and renames it into place."""
        assert self._file is not None and self._aside is not None
        self.end_document()
        self._write(bytes(-self.tokens * self.item % 8))
        if sys.byteorder == "big":
            self._offsets.byteswap()
        self._write(self._offsets.tobytes())
        header = Header(
            self.item, self.tokens, self.documents, self.largest, self.fingerprint, sha256=""
        )
        self._digest.update(header.pack())
        header = header._replace(sha256=self._digest.hexdigest())
        try:
            self._file.seek(0)
            self._file.write(header.pack() + self._digest.digest())
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            os.chmod(self._aside, 0o644)  # mkstemp's 0600 would hide it from other users
            os.replace(self._aside, self.path)
        except OSError as error:
            raise self._failed(error) from error
        self._file = self._aside = None
        return header

    def __enter__(self) -> "TokenFileWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.discard()

    def _write(self, data: bytes) -> None:
        assert self._file is not None
        self._digest.update(data)
        try:
            self._file.write(data)
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> DataError:
        self.discard()
        return DataError(
            f"{self.path}: cannot be written ({error.strerror or error}); "
            "free some space or choose another folder"
        )

    def discard(self) -> None:
        """Removes what is not committed; nothing where `commit` was called."""
        file, aside = self._file, self._aside
        self._file = self._aside = None
        if file is not None:
            with contextlib.suppress(OSError):  # what it still held has no room either
                file.close()
        if aside is not None:
            Path(aside).unlink(missing_ok=True)
