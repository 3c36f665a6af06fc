"""What lies where in an OCDBT database, the key-value store that Orbax keeps arrays in.

https://google.github.io/tensorstore/kvstore/ocdbt/: a manifest points to a B+tree, whose leaves
give every value, or the file, offset and length of it. tensorstore decodes the nodes; before each
its header is looked at here, so that no claim in it can make the decoder allocate without bound.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import CheckpointCorrupt
from .zip import AGAIN
from .zstd import decoded_bounds

MANIFEST = "manifest.ocdbt"
_MANIFEST_MAGIC, _NODE_MAGIC = b"\x0c\xdb\x3a\x2a", b"\x0c\xdb\x20\xde"
_DEEPEST = 32
_SECONDS = 60.0  # for a node of the tree; a local file answers at once
_LOCATION = re.compile(r"(value|btreenode):([^:]*):([^:]+):([0-9]{1,18}):([0-9]{1,18})")
_PART = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")


class Span(NamedTuple):
    """Where bytes lie: `size` of them from `begin` in a file, or `inline` as they are."""

    file: Path
    begin: int
    size: int
    inline: bytes | None = None


def read_ocdbt(folder: Path, sizes: dict[Path, int], limit: int) -> dict[str, Span]:
    """Every key and where its value lies.

    sizes: of the files in the folder; nothing else is opened. limit: bytes that a node may decode
    to. Raises CheckpointCorrupt for whatever does not lie inside the files.
    """
    import tensorstore as ts

    path = folder / MANIFEST
    _check_node(path, Span(path, 0, sizes.get(path, 0)), _MANIFEST_MAGIC, limit)
    base: Any = ts.KvStore.open({"driver": "file", "path": f"{folder}/"}).result(_SECONDS)
    manifest: Any = ts.ocdbt.dump(base).result(_SECONDS)
    versions: Any = manifest.get("versions")
    if not versions:
        raise CheckpointCorrupt(f"{path} names no version of the data; {AGAIN}")
    root = versions[-1]["root"]
    if "location" not in root:
        return {}
    seen: set[str] = set()

    def walk(location: str, prefix: bytes, depth: int) -> Iterator[tuple[bytes, Span]]:
        if location in seen or depth > _DEEPEST:
            raise CheckpointCorrupt(f"{path}: its tree turns back on itself; {AGAIN}")
        seen.add(location)
        span = _span(folder, location, sizes)
        _check_node(span.file, span, _NODE_MAGIC, limit)
        for entry in ts.ocdbt.dump(base, location).result(_SECONDS)["entries"]:
            if "location" in entry:
                yield from walk(
                    entry["location"], prefix + entry["subtree_common_prefix"], depth + 1
                )
            elif "inline_value" in entry:
                value = bytes(entry["inline_value"])
                yield prefix + entry["key"], Span(path, 0, len(value), value)
            else:
                yield prefix + entry["key"], _span(folder, entry["indirect_value"], sizes)

    found: dict[str, Span] = {}
    for key, span in walk(root["location"], b"", 0):
        found[key.decode("utf-8")] = span
    return found


def _span(folder: Path, location: str, sizes: dict[Path, int]) -> Span:
    """A place inside one of the folder's files."""
    match = _LOCATION.fullmatch(location)
    parts = (match[2] + match[3]).split("/") if match else []
    file = folder.joinpath(*parts)
    if match is None or not all(_PART.fullmatch(part) for part in parts) or file not in sizes:
        raise CheckpointCorrupt(
            f"{folder / MANIFEST} points to {location[:200]!r}, which is not in the folder; {AGAIN}"
        )
    begin, size = int(match[4]), int(match[5])
    if begin + size > sizes[file]:
        raise CheckpointCorrupt(
            f"{file} ends at byte {sizes[file]}, before the end of what {MANIFEST} says is there, "
            f"{begin + size}: it is cut off; {AGAIN}"
        )
    return Span(file, begin, size)


def _check_node(path: Path, span: Span, magic: bytes, limit: int) -> None:
    """Magic number, length, and a compressed part that does not claim more than `limit`."""
    if span.size > limit:
        raise CheckpointCorrupt(f"{path}: a node of {span.size} bytes; {AGAIN}")
    with open(path, "rb") as file:
        file.seek(span.begin)
        data = memoryview(file.read(span.size))
    whole = len(data) >= 18 and int.from_bytes(data[4:12], "little") == len(data)
    if not whole or bytes(data[:4]) != magic or data[12] != 0:
        raise CheckpointCorrupt(f"{path} is cut off or no part of an OCDBT database; {AGAIN}")
    if data[13] == 0:  # not compressed
        return
    bounds = decoded_bounds(data[14:-4]) if data[13] == 1 else None
    if bounds is None or bounds[1] > limit:
        raise CheckpointCorrupt(f"{path}: its compressed part is damaged; {AGAIN}")
