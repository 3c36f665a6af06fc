"""Orbax folders, read: Flax parameters in an OCDBT database, or in a folder of zarr arrays each.

Everything that the folder claims is checked before the first tensor is made: that its files are
regular files, that every array has its chunks, that these lie inside the files, and that all of it
takes at most RATIO times the bytes on disk, and SLACK. What is compressed is looked at block by
block before it is decoded, so the bound holds for files made to break it. JAX is not needed.
"""

import mmap
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...errors import (
    CheckpointCorrupt,
    CheckpointError,
    CheckpointNotFound,
    GriffinError,
    MissingExtra,
)
from ..names import Shape
from .ocdbt import MANIFEST, Span, read_ocdbt
from .zarr import METADATA, Array, check_chunk, inflate, read_array
from .zip import AGAIN

RATIO = 100  # bytes of tensors for a byte on disk, at most; trained weights have less than 2
SLACK = 64 * 2**20  # bytes besides: models of tests are small and may be all zeros
_MOST_FILES = 1_000_000
_SECONDS = 600.0  # for one tensor; it is there, its bytes were counted
_SIGNS = (MANIFEST, "_METADATA", "_CHECKPOINT_METADATA", "checkpoint")


def is_orbax(folder: Path) -> bool:
    """Whether a folder is one that Orbax wrote, by the names in it."""
    if any((folder / sign).is_file() for sign in _SIGNS):
        return True
    return any((child / METADATA).is_file() for child in _folders(folder))


def orbax_folders(folder: Path) -> list[Path]:
    """The folder itself if Orbax wrote it, else those directly in it that it wrote."""
    if is_orbax(folder):
        return [folder]
    return [child for child in _folders(folder) if is_orbax(child)]


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(child for child in folder.iterdir() if child.is_dir())
    except OSError:
        return []


class OrbaxFolder:
    """The arrays of an Orbax folder (a Source); their names are the tree's paths, with dots."""

    mapped = False

    def __init__(self, folder: Path) -> None:
        self.where = folder
        self._maps: dict[Path, mmap.mmap] = {}
        try:
            self._sizes = _sizes(folder)
            self._limit = RATIO * sum(self._sizes.values()) + SLACK
            self._arrays = self._read()
        except GriffinError:
            raise
        except ImportError as error:
            raise MissingExtra("tensorstore", "deepmind", "reading Flax checkpoints") from error
        except OSError as error:
            raise CheckpointError(f"cannot read {folder}: {error.strerror or error}") from error
        except Exception as error:  # whatever tensorstore makes of a damaged folder
            raise CheckpointCorrupt(
                f"{folder} cannot be read as an Orbax folder ({str(error)[:300]}); {AGAIN}"
            ) from error
        self.shapes: dict[str, Shape] = {name: a.shape for name, a in self._arrays.items()}
        if self.nbytes > self._limit:
            raise CheckpointCorrupt(
                f"{folder} describes tensors of {self.nbytes} bytes, more than {RATIO} times its "
                f"files: it is damaged, or no trained model; {AGAIN}"
            )

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors, decoded."""
        return sum(array.nbytes for array in self._arrays.values())

    @property
    def files(self) -> list[Path]:
        """Every file of the folder."""
        return list(self._sizes)

    def dtype(self, name: str) -> torch.dtype:
        """The dtype in the file."""
        return self._arrays[name].dtype

    def get(self, name: str) -> Tensor:
        """A new tensor. Raises CheckpointCorrupt where a chunk is not what it should be."""
        array = self._arrays[name]
        try:
            for span in array.chunks.values():
                check_chunk(array, span.file, self._bytes(span), self._limit)
            found = self._decoded(array) if array.codec == "zstd" else self._assembled(array)
        except GriffinError:
            raise
        except ImportError as error:
            raise MissingExtra("tensorstore", "deepmind", "reading Flax checkpoints") from error
        except Exception as error:  # whatever tensorstore makes of a damaged chunk
            raise CheckpointCorrupt(
                f"{self.where}: tensor {name[:200]!r} cannot be read ({str(error)[:300]}); {AGAIN}"
            ) from error
        return torch.from_numpy(found).view(array.dtype)

    def _read(self) -> dict[str, Array]:
        ocdbt = (self.where / MANIFEST) in self._sizes
        spans = read_ocdbt(self.where, self._sizes, self._limit) if ocdbt else self._in_files()
        keys: dict[str, dict[str, Span]] = {}
        for key, span in spans.items():
            name, _, rest = key.partition("/")
            keys.setdefault(name, {})[rest] = span
        arrays: dict[str, Array] = {}
        for name, chunks in keys.items():
            if METADATA not in chunks:
                raise CheckpointError(
                    f"{self.where}: {name[:200]!r} is no array of zarr's second format"
                    + (" but of its third" if "zarr.json" in chunks else "")
                    + "; save it with use_zarr3=False"
                )
            metadata = bytes(self._bytes(chunks.pop(METADATA)))
            arrays[name] = read_array(name, self.where, metadata, chunks)
        if not arrays:
            raise CheckpointNotFound(
                f"{self.where} holds no arrays; Orbax's oldest layout, all in one msgpack file, is "
                "not read: save it with today's Orbax"
            )
        return arrays

    def _in_files(self) -> dict[str, Span]:
        """The older layout: a folder for every array, a file for every chunk."""
        names = {file.parent for file in self._sizes if file.name == METADATA}
        inside = {name for name in names if name.parent == self.where}
        return {
            file.relative_to(self.where).as_posix(): Span(file, 0, size)
            for file, size in self._sizes.items()
            if not inside.isdisjoint(file.parents)
        }

    def _bytes(self, span: Span) -> memoryview:
        if span.inline is not None:
            return memoryview(span.inline)
        if not span.size:
            return memoryview(b"")
        if span.file not in self._maps:
            with open(span.file, "rb") as file:
                self._maps[span.file] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return memoryview(self._maps[span.file])[span.begin : span.begin + span.size]

    def _assembled(self, array: Array) -> Any:
        """Chunks that are not compressed, or by zlib, put together."""
        kind = np.dtype(f"<u{array.dtype.itemsize}")
        whole = np.empty(array.shape, kind)
        for span, into, part in array.places():
            data: Any = self._bytes(span)
            if array.codec != "none":
                data = inflate(array, span.file, data)
            whole[into] = np.frombuffer(data, kind).reshape(array.chunk)[part]
        return whole

    def _decoded(self, array: Array) -> Any:
        """Chunks compressed by zstd: tensorstore has the decoder."""
        import tensorstore as ts

        base: Any = {"driver": "file", "path": f"{self.where}/"}
        if (self.where / MANIFEST) in self._sizes:
            base = {"driver": "ocdbt", "base": base, "path": f"{array.name}/"}
        else:
            base["path"] += f"{array.name}/"
        store: Any = ts.open({"driver": "zarr", "kvstore": base}, open=True).result(_SECONDS)
        if tuple(store.shape) != array.shape:
            raise CheckpointCorrupt(f"{self.where}: {array.name!r} was changed meanwhile")
        return store.read().result(_SECONDS).view(f"<u{array.dtype.itemsize}")


def _sizes(folder: Path) -> dict[Path, int]:
    """Every file of the folder and its bytes; anything that could wait for ever is refused."""
    found: dict[Path, int] = {}
    for root, _, names in os.walk(folder):
        for name in names:
            path = Path(root) / name
            status = path.stat()
            if not stat.S_ISREG(status.st_mode) or len(found) > _MOST_FILES:
                raise CheckpointCorrupt(f"{path} is not a file, or one of too many; remove it")
            found[path] = status.st_size
    return found
