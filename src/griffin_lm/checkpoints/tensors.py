"""Tensors in safetensors files, read one at a time through a memory map, checked before use.

Nothing is allocated by what a header claims before the claim was held against the size of the file.
https://github.com/huggingface/safetensors#format
"""

import math
import mmap
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointCorrupt, CheckpointError, CheckpointMismatch, CheckpointNotFound
from .files import INDEX, WEIGHTS, parse_json, read_json
from .names import Shape

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
CODES = {dtype: code for code, dtype in DTYPES.items()}
# of matrices that we quantised; those of other programs mean other things by the same dtypes
PACKED = {"I8": torch.int8, "U8": torch.uint8, "I32": torch.int32}
STORED = DTYPES | PACKED
STORED_CODES = {dtype: code for code, dtype in STORED.items()}
LONGEST_HEADER = 100_000_000  # bytes; the limit of the safetensors library
_AGAIN = "fetch or save the checkpoint again"


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies in a file: dtype's code, shape, first byte, byte after the last."""

    code: str
    shape: Shape
    begin: int
    end: int


class TensorFile:
    """One safetensors file, opened and its header checked: names, metadata, tensors by name.

    dtypes: by code, those that it may hold.
    """

    def __init__(self, path: Path, dtypes: Mapping[str, torch.dtype] = DTYPES) -> None:
        self.path, self._dtypes = path, dtypes
        try:
            if not path.is_file():
                raise CheckpointNotFound(f"there is no file {path}; {_AGAIN}")
            with open(path, "rb") as file:
                size = file.seek(0, 2)
                if size < 8:
                    raise CheckpointCorrupt(f"{path} is cut off ({size} bytes); {_AGAIN}")
                # private and writable for torch's sake; never written, so it stays file-backed
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"cannot read {path}: {error}") from error
        length = int.from_bytes(self._map[:8], "little")
        if length > min(size - 8, LONGEST_HEADER):
            raise CheckpointCorrupt(
                f"{path} claims a header of {length} bytes in a file of {size}: it is cut off or "
                f"not safetensors; {_AGAIN}"
            )
        header = parse_json(self._map[8 : 8 + length], path, "its header")
        metadata = header.pop("__metadata__", {})
        if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
            raise CheckpointCorrupt(f"{path}: the metadata in its header are not strings; {_AGAIN}")
        self.metadata: dict[str, str] = metadata
        start = 8 + length
        self.entries = {name: self._entry(name, row, start) for name, row in header.items()}
        self._check_layout(start, size)

    def get(self, name: str) -> Tensor:
        """A view of the file's bytes, or a copy where they are not aligned; not to be written."""
        entry = self.entries[name]
        dtype, numel = STORED[entry.code], math.prod(entry.shape)
        if not numel:
            return torch.empty(entry.shape, dtype=dtype)
        if entry.begin % dtype.itemsize:
            raw = torch.frombuffer(
                self._map, dtype=torch.uint8, count=entry.end - entry.begin, offset=entry.begin
            )
            return raw.clone().view(dtype).view(entry.shape)
        return torch.frombuffer(
            self._map, dtype=dtype, count=numel, offset=entry.begin
        ).view(entry.shape)  # fmt: skip

    def checksum(self, name: str) -> str:
        """See `checksum`; of what stands in the file."""
        entry = self.entries[name]
        with memoryview(self._map) as whole, whole[entry.begin : entry.end] as data:
            return checksum(name, entry.code, entry.shape, data)

    def _entry(self, name: str, row: Any, start: int) -> Entry:
        where = f"{self.path}: tensor {name[:200]!r}"
        row = row if isinstance(row, dict) else {}
        code, shape, span = row.get("dtype"), row.get("shape"), row.get("data_offsets")
        if not (_counts(shape) and _counts(span) and len(span) == 2 and isinstance(code, str)):
            raise CheckpointCorrupt(f"{where} is not described as safetensors asks; {_AGAIN}")
        if code not in self._dtypes:
            known = ", ".join(self._dtypes)
            raise CheckpointCorrupt(
                f"{where} has the dtype {code[:20]}; weights must be one of {known} "
                "(quantised checkpoints of other programs are not read)"
            )
        bytes_ = math.prod(shape) * STORED[code].itemsize
        if span[1] - span[0] != bytes_:
            raise CheckpointCorrupt(
                f"{where} is {code} {tuple(shape)}, {bytes_} bytes, but lies at bytes {span[0]} to "
                f"{span[1]}; {_AGAIN}"
            )
        return Entry(code, tuple(shape), start + span[0], start + span[1])

    def _check_layout(self, start: int, size: int) -> None:
        """The tensors fill the file, without gap or overlap."""
        beyond = [name for name, entry in self.entries.items() if entry.end > size]
        if beyond:
            raise CheckpointCorrupt(
                f"{self.path} ends at byte {size}, before the end of tensor {beyond[0][:200]!r} "
                f"({len(beyond)} such): it is cut off or damaged; {_AGAIN}"
            )
        at = start
        for name, entry in sorted(self.entries.items(), key=_place):
            if entry.begin != at:
                raise CheckpointCorrupt(
                    f"{self.path}: tensor {name[:200]!r} starts at byte {entry.begin}, not where "
                    f"the one before ends, {at}: the file is damaged; {_AGAIN}"
                )
            at = entry.end
        if at != size:
            raise CheckpointCorrupt(f"{self.path} has {size - at} bytes too many; {_AGAIN}")


def _place(named: tuple[str, Entry]) -> tuple[int, int]:
    return named[1].begin, named[1].end


def _counts(value: Any) -> bool:
    """A short list of integers >= 0, small enough for any machine."""
    if not isinstance(value, list) or len(value) > 8:
        return False
    return all(type(n) is int and 0 <= n < 2**62 for n in value)


def checksum(name: str, code: str, shape: Shape, data: memoryview) -> str:
    """CRC-32 of name, dtype, shape and bytes, 8 hexadecimal digits: for accidents, not attacks."""
    return f"{zlib.crc32(data, zlib.crc32(f'{name} {code} {list(shape)}'.encode())):08x}"


class Weights:
    """The tensors of a folder, in one file or in the shards that an index names (a Source)."""

    mapped = True

    def __init__(self, folder: Path, dtypes: Mapping[str, torch.dtype] = DTYPES) -> None:
        self._dtypes = dtypes
        if (folder / WEIGHTS).exists():
            self.where = folder / WEIGHTS
            self.shards = [TensorFile(self.where, dtypes)]
        elif (folder / INDEX).exists():
            self.where = folder / INDEX
            self.shards = self._shards(folder)
        else:
            pickled = next((p.name for p in sorted(folder.glob("*.bin"))), None)
            hint = f" ({pickled} is pickled and never read)" if pickled else ""
            raise CheckpointNotFound(f"{folder} has neither {WEIGHTS} nor {INDEX}{hint}; {_AGAIN}")
        self.home = {name: file for file in self.shards for name in file.entries}
        self.shapes = {name: file.entries[name].shape for name, file in self.home.items()}

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(e.end - e.begin for file in self.shards for e in file.entries.values())

    @property
    def files(self) -> list[Path]:
        """One, or the shards."""
        return [shard.path for shard in self.shards]

    def get(self, name: str) -> Tensor:
        """See TensorFile.get."""
        return self.home[name].get(name)

    def dtype(self, name: str) -> torch.dtype:
        """The dtype in the file."""
        return STORED[self.home[name].entries[name].code]

    def _shards(self, folder: Path) -> list[TensorFile]:
        where = read_json(self.where).get("weight_map")
        if not isinstance(where, dict) or not all(isinstance(v, str) for v in where.values()):
            raise CheckpointCorrupt(f"{self.where}: weight_map must give a file per name; {_AGAIN}")
        for file in set(where.values()):
            if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\.safetensors", file):
                raise CheckpointCorrupt(
                    f"{self.where} names the file {file[:100]!r}; only safetensors files beside "
                    f"the index are read; {_AGAIN}"
                )
        shards = [TensorFile(folder / name, self._dtypes) for name in sorted(set(where.values()))]
        found = {(name, shard.path.name) for shard in shards for name in shard.entries}
        if wrong := sorted(found.symmetric_difference(where.items())):
            name, file = wrong[0]
            told = "lacks" if (name, file) in where.items() else "has, against the index,"
            raise CheckpointMismatch(
                f"{folder / file} {told} the tensor {name[:200]!r} ({len(wrong)} such in all): "
                f"index and shards are of different checkpoints; {_AGAIN}"
            )
        return shards


def same_bits(a: Tensor, b: Tensor, rows: int = 4096) -> bool:
    """Whether two tensors are equal to the bit, NaNs too; compared a few rows at a time."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    pairs = zip(a.split(rows), b.split(rows), strict=True)
    return all(torch.equal(_raw(x), _raw(y)) for x, y in pairs)


def _raw(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view(torch.uint8)
