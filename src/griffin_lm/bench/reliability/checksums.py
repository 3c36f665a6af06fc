"""Checksums computed anew after damage, so that what stands behind them is fuzzed too."""

import json
import math
import zlib
from functools import cache
from random import Random
from typing import Any

from ...checkpoints.files import CONFIG
from ...checkpoints.quantization import KEY
from ...checkpoints.tensors import checksum
from ...models import ModelConfig
from .damage_json import damage_json
from .reader import Files

_METADATA, _OURS = "__metadata__", "griffin"


def split(data: bytes) -> tuple[bytes, bytes]:
    """Header text and data of a safetensors file, as far as they are there."""
    length = int.from_bytes(data[:8], "little")
    return data[8 : 8 + length], data[8 + length :]


def join(header: bytes, data: bytes) -> bytes:
    """A safetensors file."""
    return len(header).to_bytes(8, "little") + header + data


def damage_header(random: Random, data: bytes) -> bytes:
    """A safetensors file whose header is other JSON, its length right."""
    header, rest = split(data)
    if random.random() < 0.02:
        header = _with_tensors(random, header, len(rest))
    return join(damage_json(random, header), rest)


def _with_tensors(random: Random, header: bytes, end: int) -> bytes:
    """A header with thousands of tensors more, all of them empty."""
    row = f'{{"dtype":"F32","shape":[0],"data_offsets":[{end},{end}]}}'
    more = ",".join(f'"layers.{i}.x":{row}' for i in range(random.choice((1000, 5000))))
    return header.rstrip().removesuffix(b"}") + b"," + more.encode() + b"}"


def repair_checkpoint(files: Files) -> Files:
    """A folder of ours with the checksums of its tensors and of its config as they are now."""
    try:
        plain = ModelConfig.from_dict(json.loads(files[CONFIG])["model"]).to_dict()
        config = f"{zlib.crc32(json.dumps(plain, sort_keys=True).encode()):08x}"
    except Exception:  # a config that is refused has no checksum
        config = None

    try:
        said = json.loads(files[CONFIG])[KEY]
        quantised = f"{zlib.crc32(json.dumps(said, sort_keys=True).encode()):08x}"
    except Exception:
        quantised = None

    def change(ours: Any, sums: dict[str, Any]) -> None:
        ours["crc32"] = sums
        if config is not None:
            ours["config"] = config
        if quantised is not None:
            ours[KEY] = quantised

    def tensor(name: str, row: Any, data: bytes) -> str:
        return checksum(name, row["dtype"], tuple(row["shape"]), memoryview(data))

    return {
        name: _repair(data, change, tensor) if name.endswith(".safetensors") else data
        for name, data in files.items()
    }


def repair_orbax(files: Files) -> Files:
    """OCDBT databases with the CRC-32C of every node as it is now."""
    return {
        name: _repair_nodes(data) if "d/" in name or name.endswith("manifest.ocdbt") else data
        for name, data in files.items()
    }


def _repair_nodes(data: bytes) -> bytes:
    """Nodes begin with a magic number and their length, and end with their checksum."""
    raw = bytearray(data)
    for magic in (b"\x0c\xdb\x3a\x2a", b"\x0c\xdb\x20\xde"):
        at = raw.find(magic)
        while at >= 0:
            end = at + int.from_bytes(raw[at + 4 : at + 12], "little")
            if at + 16 <= end <= len(raw):
                raw[end - 4 : end] = _crc32c(raw[at : end - 4]).to_bytes(4, "little")
            at = raw.find(magic, at + 4)
    return bytes(raw)


@cache
def _crc32c_table() -> list[int]:
    table: list[int] = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


def _crc32c(data: bytes | bytearray) -> int:
    """CRC with Castagnoli's polynomial (RFC 3720, B.4), which Python does not have."""
    table, value = _crc32c_table(), 0xFFFFFFFF
    for byte in data:
        value = value >> 8 ^ table[(value ^ byte) & 255]
    return value ^ 0xFFFFFFFF


def repair_state(files: Files) -> Files:
    """State files with the checksums of their tensors as they are now."""

    def change(ours: Any, sums: dict[str, Any]) -> None:
        ours["crc32"] = sums

    def tensor(name: str, row: Any, data: bytes) -> int:
        return zlib.crc32(data) if math.prod(row["shape"]) else 0

    return {name: _repair(data, change, tensor) for name, data in files.items()}


def _repair(data: bytes, change: Any, tensor: Any) -> bytes:
    """A file with checksums as `tensor` computes them; unchanged where its header is no header."""
    text, rest = split(data)
    try:
        header = json.loads(text)
        ours = json.loads(header[_METADATA][_OURS])
        sums: dict[str, Any] = {}
        for name, row in header.items():
            if name != _METADATA:
                begin, end = row["data_offsets"]
                sums[name] = tensor(name, row, rest[begin:end])
        change(ours, sums)
        header[_METADATA][_OURS] = json.dumps(ours)
        return join(json.dumps(header).encode(), rest)
    except Exception:  # whatever the damage made of it
        return data
