"""Orbax folders, written: what PyTreeCheckpointer restores, by tensorstore alone.

The tree is that of the published checkpoints: the parameters themselves, not wrapped in "params".
Chunks are not compressed: trained weights gain little by it, and these can be read in place.
"""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...errors import CheckpointError, MissingExtra
from ...shapes import JSON
from ..names import Shape
from ..source import Outgoing
from ..writing import check_dtype, raw_bytes
from .zarr import DTYPES, METADATA

_CODES = {dtype: code for code, dtype in DTYPES.items()}
_LEAST, _MOST = 2**20, 2**25  # bytes of a chunk, and of what is held until it is on disk


def write_orbax(folder: Path, tensors: list[Outgoing]) -> None:
    """Writes a new folder; one tensor is made at a time.

    Raises OSError, CheckpointError, MissingExtra; CheckpointMismatch for another dtype.
    """
    try:
        import tensorstore as ts
    except ImportError as error:
        raise MissingExtra("tensorstore", "deepmind", "writing Flax checkpoints") from error
    for tensor in tensors:
        check_dtype(tensor)
    folder.mkdir()
    batch = min(max(sum(tensor.nbytes for tensor in tensors) // 64, _LEAST), _MOST)
    base: JSON = {"driver": "file", "path": f"{folder}/"}
    try:
        store: Any = ts.KvStore.open({"driver": "ocdbt", "base": base}).result()
        transaction: Any = ts.Transaction()
        held = 0
        for key, value in _values(tensors, batch):
            store.with_transaction(transaction)[key] = value
            held += len(value)
            if held >= batch:
                transaction.commit_sync()
                transaction, held = ts.Transaction(), 0
        transaction.commit_sync()
    except ValueError as error:  # tensorstore's word for what the system refuses
        raise CheckpointError(
            f"could not write {folder.name}: {str(error)[:300]}; make room or choose another "
            "place, and save again"
        ) from error
    names = [tensor.name for tensor in tensors]
    (folder / "checkpoint").write_bytes(_msgpack(_tree(names)))  # for Orbax before 2024-06
    (folder / "_METADATA").write_text(json.dumps(_metadata(tensors)), encoding="utf-8")


def _values(tensors: list[Outgoing], most: int) -> Iterator[tuple[str, bytes]]:
    """Every key of the database and its value, in turn."""
    for tensor in tensors:
        chunk = _chunk(tensor.shape, tensor.dtype.itemsize, most)
        described = {
            "chunks": list(chunk),
            "compressor": None,
            "dimension_separator": ".",
            "dtype": _CODES[tensor.dtype],
            "fill_value": None,
            "filters": None,
            "order": "C",
            "shape": list(tensor.shape),
            "zarr_format": 2,
        }
        yield f"{tensor.name}/{METADATA}", json.dumps(described).encode()
        yield from _chunks(tensor, chunk)


def _chunks(tensor: Outgoing, chunk: Shape) -> Iterator[tuple[str, bytes]]:
    """A tensor's chunks, each a run of its bytes in row-major order; the last is filled up."""
    data = raw_bytes(tensor.make())
    counts = [math.ceil(s / c) for s, c in zip(tensor.shape, chunk, strict=True)]
    axis = next((i for i, c in enumerate(chunk) if c > 1), max(len(chunk) - 1, 0))
    row = math.prod(tensor.shape[axis + 1 :]) * tensor.dtype.itemsize
    length = math.prod(chunk) * tensor.dtype.itemsize
    extent = tensor.shape[axis] * row if tensor.shape else length  # bytes along `axis`
    for number in range(math.prod(counts)):
        rest, at = number, list[int]()
        for count in reversed(counts):
            rest, index = divmod(rest, count)
            at.insert(0, index)
        outer = number // counts[axis] if counts else 0
        begin = at[axis] * length if at else 0
        piece = bytes(data[outer * extent + begin : outer * extent + min(begin + length, extent)])
        yield f"{tensor.name}/{'.'.join(map(str, at)) or '0'}", piece.ljust(length, b"\0")


def _chunk(shape: Shape, itemsize: int, most: int) -> Shape:
    """The shape of a chunk of at most so many bytes (one row at least): leading axes are cut."""
    chunk = list(shape)
    for axis in range(len(chunk) - 1):
        inner = math.prod(chunk[axis + 1 :]) * itemsize
        chunk[axis] = min(chunk[axis], max(most // inner, 1))
        if chunk[axis] > 1:
            break
    return tuple(chunk)


def _metadata(tensors: list[Outgoing]) -> JSON:
    """What Orbax wants to know of the tree."""
    rows: JSON = {}
    for tensor in tensors:
        path = _path(tensor.name)
        rows[str(path)] = {
            "key_metadata": [{"key": key, "key_type": 2} for key in path],  # 2: of a dict
            "value_metadata": {
                "value_type": "np.ndarray",  # jax.Array would name a device
                "skip_deserialize": False,
                "write_shape": list(tensor.shape),
            },
        }
    return {
        "tree_metadata": rows,
        "use_ocdbt": True,
        "use_zarr3": False,
        "store_array_data_equal_to_fill_value": True,
        "custom_metadata": None,
    }


def _path(name: str) -> tuple[str, ...]:
    """A dotted name as keys of the tree, whose blocks are called "blocks.0" with the dot."""
    block = re.match(r"blocks\.[0-9]+", name)
    head = block[0] if block else ""
    rest = name[len(head) :].strip(".").split(".")
    return (head, *rest) if head else tuple(rest)


def _tree(names: list[str]) -> JSON:
    """The tree as older releases want it: nested dicts that say where each leaf is."""
    tree: JSON = {}
    for name in names:
        *path, leaf = _path(name)
        inner = tree
        for key in path:
            inner = inner.setdefault(key, {})
        inner[leaf] = f"PLACEHOLDER://{name}"
    return tree


def _msgpack(value: JSON | str) -> bytes:
    """Nested dicts and short strings in msgpack."""
    if isinstance(value, str):
        text = value.encode()
        return b"\xda" + len(text).to_bytes(2, "big") + text
    pairs = b"".join(_msgpack(key) + _msgpack(inner) for key, inner in value.items())
    return b"\xde" + len(value).to_bytes(2, "big") + pairs
