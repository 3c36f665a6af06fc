"""PyTorch's zip files, checked from outside before PyTorch opens them.

https://pytorch.org/docs/stable/notes/serialization.html: every storage is an entry `data/KEY`, not
compressed, and `data.pkl` says which tensors are made of them. What an entry claims is held against
the size of the file, and the pickle may name nothing but what a plain dict of tensors needs.
"""

import pickletools
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ...errors import CheckpointCorrupt, CheckpointError, CheckpointNotFound

AGAIN = "fetch or save the checkpoint again"
_LOCAL = b"PK\x03\x04"
_LARGEST_PICKLE = 64 * 2**20  # bytes; the largest in use has well under one MiB
_MOST_ENTRIES = 100_000
_ALLOWED = frozenset(
    {
        "collections OrderedDict",
        "torch._utils _rebuild_tensor_v2",
        "torch._utils _rebuild_parameter",
    }
    | {f"torch {kind}Storage" for kind in ("Float", "BFloat16", "Half", "Double")}
)


@dataclass(frozen=True)
class Record:
    """Where a storage's bytes lie in the file, and their CRC-32 (None: written without one)."""

    begin: int
    size: int
    crc: int | None


def read_records(path: Path) -> list[Record]:
    """The storages of a `.pt` file, in the order in which they lie there.

    Raises CheckpointNotFound, CheckpointCorrupt, CheckpointError saying what is wrong with it.
    """
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            begin = file.read(4)
            if begin != _LOCAL:
                raise _no_zip(path, begin, size)
            with zipfile.ZipFile(file) as archive:
                infos = _checked(path, archive, size)
            spans = {name: _span(path, file, info) for name, info in infos.items()}
            _check_spans(path, spans, size)
            summed = "version" in infos and infos["version"].CRC != 0  # torch can leave sums out
            small: dict[str, bytes] = {}
            for name in ("data.pkl", "byteorder", "version"):
                if name in infos:
                    file.seek(spans[name][0])
                    small[name] = file.read(spans[name][1])
                    if summed and zlib.crc32(small[name]) != infos[name].CRC:
                        raise CheckpointCorrupt(f"{path}: {name} is damaged; {AGAIN}")
            if small.get("byteorder", b"little") != b"little":
                raise CheckpointError(f"{path} is not in the byte order little; {AGAIN}")
            _check_pickle(path, small["data.pkl"])
    except FileNotFoundError as error:
        raise CheckpointNotFound(f"there is no file {path}; {AGAIN}") from error
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, EOFError) as error:
        raise CheckpointCorrupt(
            f"{path} is cut off or damaged ({str(error)[:200]}); {AGAIN}"
        ) from error
    found = [
        Record(*spans[name], info.CRC if summed else None)
        for name, info in infos.items()
        if name.startswith("data/")
    ]
    return sorted(found, key=lambda record: (record.begin, record.size))


def crc32(data: memoryview) -> int:
    """As zip files have it."""
    return zlib.crc32(data)


def _no_zip(path: Path, begin: bytes, size: int) -> CheckpointError:
    if begin[:1] == b"\x80":
        return CheckpointError(
            f"{path} is a pickle of the kind that PyTorch wrote before 1.6, which can run code and "
            "is never read; open it where that does no harm and save it with today's torch.save"
        )
    return CheckpointCorrupt(
        f"{path} ({size} bytes) is no file of torch.save, or it is cut off; {AGAIN}"
    )


def _checked(path: Path, archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """The entries by their names inside the archive's one folder, none of them compressed."""
    entries = archive.infolist()
    stem = entries[0].filename.partition("/")[0] + "/" if entries else ""
    infos = {info.filename.removeprefix(stem): info for info in entries}
    if len(entries) > _MOST_ENTRIES or len(infos) < len(entries) or "data.pkl" not in infos:
        raise CheckpointCorrupt(
            f"{path} is a zip file, but not one of torch.save: it has no {stem}data.pkl, or has an "
            f"entry twice; {AGAIN}"
        )
    for name, info in infos.items():
        if info.filename != stem + name or name.startswith(("code/", "constants")):
            raise CheckpointError(
                f"{path} holds {info.filename[:100]!r}: it is a program or an archive, not "
                "weights; save the model's state_dict with torch.save"
            )
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise CheckpointCorrupt(
                f"{path}: {info.filename[:100]!r} is compressed, as torch.save never does; {AGAIN}"
            )
        if info.file_size != info.compress_size or info.header_offset + info.file_size > size:
            raise CheckpointCorrupt(
                f"{path}: {info.filename[:100]!r} claims {info.file_size} bytes, more than the "
                f"file of {size} has for it; {AGAIN}"
            )
    if infos["data.pkl"].file_size > _LARGEST_PICKLE:
        raise CheckpointCorrupt(f"{path}: its table of tensors is too large to be one; {AGAIN}")
    for name in ("byteorder", "version"):
        if name in infos and infos[name].file_size > 100:
            raise CheckpointCorrupt(f"{path}: {name} is too large; {AGAIN}")
    return infos


def _span(path: Path, file: BinaryIO, info: zipfile.ZipInfo) -> tuple[int, int]:
    """First byte and number of bytes of an entry, by its own header."""
    file.seek(info.header_offset)
    header = file.read(30)
    if len(header) < 30 or header[:4] != _LOCAL:
        raise CheckpointCorrupt(f"{path}: {info.filename[:100]!r} has no header; {AGAIN}")
    skip = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    return info.header_offset + 30 + skip, info.file_size


def _check_spans(path: Path, spans: dict[str, tuple[int, int]], size: int) -> None:
    """Entries lie one after the other inside the file."""
    at = 0
    for begin, length in sorted(spans.values()):
        if begin < at or begin + length > size:
            raise CheckpointCorrupt(f"{path}: its entries overlap or run over its end; {AGAIN}")
        at = begin + length


def _check_pickle(path: Path, data: bytes) -> None:
    """Refuses a table that names anything beyond what a dict of dense float tensors needs."""
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name == "GLOBAL" and argument not in _ALLOWED:
            raise CheckpointError(
                f"{path} holds {str(argument).replace(' ', '.')[:100]}; only a plain dict of float "
                "tensors is read: save the model's state_dict alone with torch.save"
            )
        if opcode.name in ("STACK_GLOBAL", "INST", "OBJ", "EXT1", "EXT2", "EXT4", "NEWOBJ_EX"):
            raise CheckpointError(
                f"{path} is pickled with {opcode.name}, which torch.save does not use for tensors; "
                "save the model's state_dict with torch.save"
            )
