"""Writes tensors as safetensors, one at a time: no second copy of the weights in memory."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointMismatch
from .files import INDEX, WEIGHTS, write_json
from .tensors import CODES, DTYPES, checksum

Named = list[tuple[str, Tensor]]
Metadata = Callable[[dict[str, str]], dict[str, str]]


def write_weights(folder: Path, tensors: Named, metadata: Metadata, limit: int) -> None:
    """One file, or shards of at most `limit` bytes (one tensor at least) and their index.

    tensors: (name in the file, tensor); metadata: from the checksums of a file's tensors to what
    stands in its header, as long for any checksums. Raises OSError, CheckpointMismatch.
    """
    shards = _split(tensors, limit)
    if len(shards) == 1:
        _write_file(folder / WEIGHTS, shards[0], metadata)
        return
    home: dict[str, str] = {}
    for i, shard in enumerate(shards, 1):
        file = f"model-{i:05d}-of-{len(shards):05d}.safetensors"
        _write_file(folder / file, shard, metadata)
        home |= {name: file for name, _ in shard}
    total = sum(tensor.nbytes for _, tensor in tensors)
    write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": home})


def is_weights(name: str) -> bool:
    """Whether a file of this name is one that write_weights makes, or another program's weights."""
    sharded = name.startswith("model-") and name.endswith(".safetensors")
    return sharded or name in (WEIGHTS, INDEX)


def _split(tensors: Iterable[tuple[str, Tensor]], limit: int) -> list[Named]:
    shards: list[Named] = [[]]
    room = limit
    for name, tensor in tensors:
        if shards[-1] and tensor.nbytes > room:
            shards.append([])
            room = limit
        shards[-1].append((name, tensor))
        room -= tensor.nbytes
    return shards


def _write_file(path: Path, tensors: Named, metadata: Metadata) -> None:
    """Header with blank checksums, tensors, then the header again, of the same length."""
    for name, tensor in tensors:
        if tensor.dtype not in CODES:
            raise CheckpointMismatch(
                f"{name} is {tensor.dtype}; weights are saved as {', '.join(DTYPES)}: save the "
                "model before quantising it"
            )
    # widest elements first, so that every tensor is aligned
    tensors = sorted(tensors, key=lambda pair: -pair[1].element_size())
    sums = {name: "0" * 8 for name, _ in tensors}
    with open(path, "xb") as file:
        file.write(_header(tensors, metadata(sums)))
        for name, tensor in tensors:
            data = _bytes(tensor)
            sums[name] = checksum(name, CODES[tensor.dtype], tuple(tensor.shape), data)
            file.write(data)
        file.seek(0)
        file.write(_header(tensors, metadata(sums)))


def _header(tensors: Named, metadata: dict[str, str]) -> bytes:
    header: dict[str, object] = {"__metadata__": metadata}
    at = 0
    for name, tensor in tensors:
        header[name] = {
            "dtype": CODES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [at, at + tensor.nbytes],
        }
        at += tensor.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _bytes(tensor: Tensor) -> memoryview:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    raw: Any = flat.view(torch.uint8).numpy() if flat.numel() else b""
    return memoryview(raw)
