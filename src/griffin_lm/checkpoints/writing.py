"""Writes tensors as safetensors, one at a time: no second copy of the weights in memory."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointMismatch
from .files import INDEX, WEIGHTS, write_json
from .source import Outgoing
from .tensors import CODES, DTYPES, STORED_CODES, checksum

Named = list[Outgoing]
Metadata = Callable[[dict[str, str]], dict[str, str]]


def write_weights(folder: Path, tensors: Named, metadata: Metadata, limit: int) -> None:
    """One file, or shards of at most `limit` bytes (one tensor at least) and their index.

    metadata: from the checksums of a file's tensors to what stands in its header, as long for any
    checksums. Raises OSError, CheckpointMismatch.
    """
    shards = _split(tensors, limit)
    if len(shards) == 1:
        _write_file(folder / WEIGHTS, shards[0], metadata)
        return
    home: dict[str, str] = {}
    for i, shard in enumerate(shards, 1):
        file = f"model-{i:05d}-of-{len(shards):05d}.safetensors"
        _write_file(folder / file, shard, metadata)
        home |= {tensor.name: file for tensor in shard}
    total = sum(tensor.nbytes for tensor in tensors)
    write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": home})


def write_tensors(path: Path, tensors: Named, metadata: dict[str, str]) -> None:
    """One file of tensors that are no model, such as an adapter. As write_weights."""
    _write_file(path, tensors, lambda _: metadata)


def is_weights(name: str) -> bool:
    """Whether a file of this name is one that write_weights makes, or another program's weights."""
    sharded = name.startswith("model-") and name.endswith(".safetensors")
    return sharded or name in (WEIGHTS, INDEX)


def _split(tensors: Iterable[Outgoing], limit: int) -> list[Named]:
    shards: list[Named] = [[]]
    room = limit
    for tensor in tensors:
        if shards[-1] and tensor.nbytes > room:
            shards.append([])
            room = limit
        shards[-1].append(tensor)
        room -= tensor.nbytes
    return shards


def _write_file(path: Path, tensors: Named, metadata: Metadata) -> None:
    """Header with blank checksums, tensors, then the header again, of the same length.

    Tensors are made in the order given, so that what shares work comes together, and each is
    written at its place.
    """
    for tensor in tensors:
        check_dtype(tensor)
    # widest elements first, so that every tensor is aligned
    placed = sorted(tensors, key=lambda tensor: -tensor.dtype.itemsize)
    sums = {tensor.name: "0" * 8 for tensor in placed}
    with open(path, "xb") as file:
        at = file.write(_header(placed, metadata(sums)))
        begins: dict[str, int] = {}
        for tensor in placed:
            begins[tensor.name] = at
            at += tensor.nbytes
        for tensor in tensors:
            data = raw_bytes(tensor.make())
            code = STORED_CODES[tensor.dtype]
            sums[tensor.name] = checksum(tensor.name, code, tensor.shape, data)
            file.seek(begins[tensor.name])
            file.write(data)
        file.seek(0)
        file.write(_header(placed, metadata(sums)))


def _header(tensors: Named, metadata: dict[str, str]) -> bytes:
    header: dict[str, object] = {"__metadata__": metadata}
    at = 0
    for tensor in tensors:
        header[tensor.name] = {
            "dtype": STORED_CODES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [at, at + tensor.nbytes],
        }
        at += tensor.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def check_dtype(tensor: Outgoing) -> None:
    """Raises CheckpointMismatch for a tensor that is no weight."""
    if tensor.dtype not in (STORED_CODES if tensor.packed else CODES):
        raise CheckpointMismatch(
            f"{tensor.name} is {tensor.dtype}; weights are saved as {', '.join(DTYPES)}: save the "
            "model before quantising it"
        )


def raw_bytes(tensor: Tensor) -> memoryview:
    """A tensor's bytes in row-major order; a copy only where it is not contiguous on the CPU."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    raw: Any = flat.view(torch.uint8).numpy() if flat.numel() else b""
    return memoryview(raw)
