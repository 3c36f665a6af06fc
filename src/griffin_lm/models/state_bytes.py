"""Tensors as a safetensors file, written from where they lie: no copy of them is made.

The bytes are those of `safetensors.torch.save`, which copies a state twice on the way.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import StateError

CODES = {
    torch.int64: "I64",
    torch.float64: "F64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""In the order that safetensors lays tensors out: widest first, so that every one is aligned."""
_PLACE = {dtype: place for place, dtype in enumerate(CODES)}


def file_parts(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Iterator[memoryview]:
    """The parts of a file in their order: its header, then each tensor.

    tensors: on the CPU, contiguous. Raises `StateError` for a dtype that no state has.
    """
    for name, tensor in tensors.items():
        if tensor.dtype not in CODES:
            raise StateError(f"{name} is {tensor.dtype}, which a state file can't hold")
    placed = sorted(tensors.items(), key=lambda item: (_PLACE[item[1].dtype], item[0]))
    yield memoryview(_header(placed, metadata))
    for _, tensor in placed:
        yield raw(tensor)


def raw(tensor: Tensor) -> memoryview:
    """The bytes of a contiguous tensor on the CPU, where they are."""
    flat = tensor.reshape(-1)
    data: Any = flat.view(torch.uint8).numpy() if flat.numel() else b""
    return memoryview(data)


def _header(placed: list[tuple[str, Tensor]], metadata: Mapping[str, str]) -> bytes:
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    at = 0
    for name, tensor in placed:
        header[name] = {
            "dtype": CODES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [at, at + tensor.nbytes],
        }
        at += tensor.nbytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
