"""An array in zarr's second format, as Orbax writes it: metadata and chunks, checked before use.

https://zarr-specs.readthedocs.io/en/latest/v2/v2.0.html: `NAME/.zarray` is JSON, `NAME/0.3` the
chunk of these coordinates. Nothing is allocated before every claim agrees with the bytes there are.
"""

import itertools
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...errors import CheckpointCorrupt, CheckpointError
from ...shapes import JSON
from ..files import parse_json
from ..names import Shape
from .ocdbt import Span
from .zip import AGAIN
from .zstd import decoded_bounds

METADATA = ".zarray"
DTYPES = {
    "<f8": torch.float64,
    "<f4": torch.float32,
    "<f2": torch.float16,
    "bfloat16": torch.bfloat16,
}
_LARGEST_METADATA = 2**16
_CODECS = ("none", "zstd", "zlib", "gzip")


@dataclass(frozen=True)
class Array:
    """shape, dtype, shape of a chunk, codec, and where the chunks lie, by their coordinates."""

    name: str
    shape: Shape
    dtype: torch.dtype
    chunk: Shape
    codec: str
    chunks: dict[Shape, Span]

    @property
    def nbytes(self) -> int:
        """Bytes of the whole array."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def chunk_bytes(self) -> int:
        """Bytes of a chunk once decoded; at the end of an axis some of them mean nothing."""
        return math.prod(self.chunk) * self.dtype.itemsize

    def places(self) -> Iterator[tuple[Span, tuple[slice, ...], tuple[slice, ...]]]:
        """Every chunk: its bytes, where it goes in the array, and which part of it does."""
        for at, span in self.chunks.items():
            begin = [i * c for i, c in zip(at, self.chunk, strict=True)]
            size = [min(c, s - b) for c, s, b in zip(self.chunk, self.shape, begin, strict=True)]
            into = tuple(slice(b, b + n) for b, n in zip(begin, size, strict=True))
            yield span, into, tuple(slice(n) for n in size)


def read_array(name: str, where: Path, metadata: bytes, chunks: dict[str, Span]) -> Array:
    """An array, its metadata and the names of its chunks in agreement.

    where: what messages name; chunks: every other key under `name`. Raises CheckpointCorrupt, and
    CheckpointError for what may be right but is not read.
    """
    label = f"{where}: tensor {name[:200]!r}"
    if len(metadata) > _LARGEST_METADATA:
        raise CheckpointCorrupt(f"{label} is described by {len(metadata)} bytes; {AGAIN}")
    row = parse_json(metadata, where, f"the description of {name[:200]!r}")
    shape, chunk = _shape(row, "shape"), _shape(row, "chunks")
    if shape is None or chunk is None or len(shape) != len(chunk):
        raise CheckpointCorrupt(f"{label}: its shape and chunks are not described; {AGAIN}")
    if any(not 0 < c <= s for c, s in zip(chunk, shape, strict=True)):
        raise CheckpointCorrupt(f"{label} is {shape} in chunks of {chunk}; {AGAIN}")
    code, codec = row.get("dtype"), _codec(row)
    if not isinstance(code, str) or code not in DTYPES:
        raise CheckpointError(
            f"{label} has the dtype {code!r:.40}; weights must be one of {', '.join(DTYPES)}"
        )
    for key, wanted in (("zarr_format", (2,)), ("order", ("C",)), ("filters", (None, []))):
        if row.get(key) not in wanted:
            raise CheckpointError(f"{label} has {key} {row.get(key)!r:.40}; only {wanted[0]!r}")
    if codec is None:
        raise CheckpointError(
            f"{label} is compressed by {row.get('compressor')!r:.60}; read are: "
            f"{', '.join(_CODECS)}"
        )
    between = row.get("dimension_separator", ".")
    counts = [math.ceil(s / c) for s, c in zip(shape, chunk, strict=True)]
    if math.prod(counts) != len(chunks) or between not in (".", "/"):
        raise CheckpointCorrupt(
            f"{label} is {shape} in {math.prod(counts)} chunks, and {len(chunks)} are there; "
            f"{AGAIN}"
        )
    found: dict[Shape, Span] = {}
    for at in itertools.product(*map(range, counts)):
        key = between.join(map(str, at)) or "0"
        if key not in chunks:
            raise CheckpointCorrupt(f"{label}: the chunk {key} is missing; {AGAIN}")
        found[at] = chunks[key]
    return Array(name, shape, DTYPES[code], chunk, codec, found)


def check_chunk(array: Array, where: Path, data: memoryview, limit: int) -> None:
    """Holds a chunk's bytes against its size, before it is decoded."""
    wanted = array.chunk_bytes
    if array.codec == "none":
        fits = len(data) == wanted
    elif array.codec == "zstd":
        bounds = decoded_bounds(data)
        fits = bounds is not None and bounds[0] <= wanted <= bounds[1] <= max(limit, wanted)
    else:
        fits = wanted <= 1040 * len(data) + 64  # deflate's greatest ratio is 1032
    if not fits:
        raise CheckpointCorrupt(
            f"{where}: a chunk of tensor {array.name[:200]!r} does not hold the {wanted} bytes of "
            f"{array.chunk}: it is cut off or damaged; {AGAIN}"
        )


def inflate(array: Array, where: Path, data: memoryview) -> bytes:
    """A chunk compressed by zlib or gzip; never more than its size. Raises CheckpointCorrupt."""
    decoder = zlib.decompressobj(31 if array.codec == "gzip" else 15)
    try:
        raw = decoder.decompress(data, array.chunk_bytes + 1)
    except zlib.error as error:
        raise CheckpointCorrupt(f"{where}: tensor {array.name!r}: {error}; {AGAIN}") from error
    if len(raw) != array.chunk_bytes or not decoder.eof:
        raise CheckpointCorrupt(f"{where}: tensor {array.name!r} has a damaged chunk; {AGAIN}")
    return raw


def _shape(row: JSON, key: str) -> Shape | None:
    value: Any = row.get(key)
    if not isinstance(value, list) or len(value) > 8:
        return None
    return tuple(value) if all(type(n) is int and 0 <= n < 2**40 for n in value) else None


def _codec(row: JSON) -> str | None:
    found: Any = row.get("compressor")
    name = "none" if found is None else found.get("id") if isinstance(found, dict) else None
    return name if isinstance(name, str) and name in _CODECS else None
