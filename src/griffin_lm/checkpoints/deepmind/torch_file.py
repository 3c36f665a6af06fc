"""DeepMind's `.pt` files: read by torch.load(weights_only=True) and a memory map, and written."""

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._utils import _rebuild_tensor_v2  # pyright: ignore[reportPrivateUsage]

from ...errors import CheckpointCorrupt, CheckpointError
from ..names import Shape
from ..source import Outgoing
from ..tensors import CODES
from ..writing import check_dtype, raw_bytes
from .zip import AGAIN, Record, crc32, read_records

_ALIGNMENT = 64  # bytes; torch.save's own
_STORAGES = {
    torch.float32: "FloatStorage",
    torch.bfloat16: "BFloat16Storage",
    torch.float16: "HalfStorage",
    torch.float64: "DoubleStorage",
}


class TorchFile:
    """A `.pt` file of named float tensors (a Source). Each is held against its CRC-32 when read."""

    mapped = True

    def __init__(self, path: Path) -> None:
        self.where = path
        records = read_records(path)
        try:
            found: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except Exception as error:  # whatever torch makes of a damaged file
            raise CheckpointCorrupt(
                f"{path} cannot be read by torch.load ({str(error)[:200]}); {AGAIN}"
            ) from error
        self._tensors = _plain(path, found)
        self.shapes: dict[str, Shape] = {n: tuple(t.shape) for n, t in self._tensors.items()}
        if self.nbytes > path.stat().st_size:
            raise CheckpointCorrupt(f"{path}: its tensors are larger than the file; {AGAIN}")
        self._records = _match(path, records, self._tensors)
        self._good: set[int] = set()

    @property
    def files(self) -> list[Path]:
        """The one file."""
        return [self.where]

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self._tensors.values())

    def dtype(self, name: str) -> torch.dtype:
        """The dtype in the file."""
        return self._tensors[name].dtype

    def get(self, name: str) -> Tensor:
        """A view of the file, not to be written. Raises CheckpointCorrupt where a bit differs."""
        tensor = self._tensors[name]
        storage = tensor.untyped_storage()
        at = storage.data_ptr()
        if at in self._records and at not in self._good:
            data = raw_bytes(torch.empty(0, dtype=torch.uint8).set_(storage))
            if crc32(data) != self._records[at]:
                raise CheckpointCorrupt(
                    f"{self.where}: tensor {name[:200]!r} is damaged (its checksum differs); "
                    f"{AGAIN}"
                )
            self._good.add(at)
        return tensor if tensor.data_ptr() % tensor.element_size() == 0 else tensor.clone()


def _plain(path: Path, found: Any) -> dict[str, Tensor]:
    """The tensors of a dict of dense float tensors; anything else is refused by name."""
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} holds a {type(found).__name__}, not a dict of tensors")
    for name, tensor in found.items():
        where = f"{path}: {str(name)[:200]!r}"
        if not isinstance(name, str) or type(tensor) not in (Tensor, torch.nn.Parameter):
            raise CheckpointError(
                f"{where} is a {type(tensor).__name__}, not a tensor; save the model's state_dict "
                "alone with torch.save"
            )
        if (
            tensor.dtype not in CODES
            or tensor.layout != torch.strided
            or tensor.device.type != "cpu"
        ):
            raise CheckpointError(
                f"{where} is {tensor.dtype}, {tensor.layout}; weights must be dense and one of "
                f"{', '.join(CODES.values())}"
            )
        if not _dense(tensor):
            raise CheckpointCorrupt(f"{where} does not fill its memory; {AGAIN}")
    return {name: tensor.detach() for name, tensor in found.items()}


def _dense(tensor: Tensor) -> bool:
    """Every element has a place of its own, without gaps: a permuted contiguous tensor."""
    step = 1
    axes = [axis for axis in zip(tensor.stride(), tensor.shape, strict=True) if axis[1] != 1]
    for stride, size in sorted(axes):
        if stride != step:
            return tensor.numel() == 0
        step *= size
    return True


def _match(path: Path, records: list[Record], tensors: dict[str, Tensor]) -> dict[int, int]:
    """The checksum of every storage by its address, once storages and records are the same.

    torch maps the file as a whole, so a storage's address and its record's place differ by one
    number, the same for all.
    """
    storages = {
        t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors.values()
    }
    found = sorted((at, size) for at, size in storages.items() if size)
    wanted = [record for record in records if record.size]
    base = {at - record.begin for (at, _), record in zip(found, wanted, strict=False)}
    sizes = [size for _, size in found] == [record.size for record in wanted]
    if not sizes or len(base) > 1:
        raise CheckpointCorrupt(f"{path}: its tensors are not those that its entries hold; {AGAIN}")
    return {at: r.crc for (at, _), r in zip(found, wanted, strict=True) if r.crc is not None}


# ---- writing


@dataclass(frozen=True)
class _Storage:
    """Stands for the bytes of an entry while the table is pickled."""

    key: str
    kind: type
    numel: int


@dataclass(frozen=True)
class _Stub:
    """Stands for a tensor while the table is pickled."""

    storage: _Storage
    shape: Shape


class _Pickler(pickle.Pickler):
    """Writes stubs as torch.save writes tensors, so the tensors need not all be there at once."""

    def persistent_id(self, obj: Any) -> Any:
        if not isinstance(obj, _Storage):
            return None
        return ("storage", obj.kind, obj.key, "cpu", obj.numel)

    def reducer_override(self, obj: Any) -> Any:
        if not isinstance(obj, _Stub):
            return NotImplemented
        strides = torch.empty(obj.shape, device="meta").stride()
        return _rebuild_tensor_v2, (obj.storage, 0, obj.shape, strides, False, OrderedDict())


def write_torch_file(path: Path, tensors: list[Outgoing]) -> None:
    """A file that torch.load gives as a dict of tensors; one tensor is made at a time.

    Raises OSError, CheckpointMismatch for a dtype that weights do not have.
    """
    table: dict[str, _Stub] = {}
    for key, tensor in enumerate(tensors):
        check_dtype(tensor)
        kind: type = getattr(torch, _STORAGES[tensor.dtype])
        numel = torch.Size(tensor.shape).numel()
        table[tensor.name] = _Stub(_Storage(str(key), kind, numel), tensor.shape)
    pickled = io.BytesIO()
    _Pickler(pickled, protocol=2).dump(table)
    with zipfile.ZipFile(path, "x", zipfile.ZIP_STORED) as archive:
        _entry(archive, path.stem, "data.pkl", pickled.getbuffer())
        _entry(archive, path.stem, "byteorder", memoryview(b"little"))
        for key, tensor in enumerate(tensors):
            _entry(archive, path.stem, f"data/{key}", raw_bytes(tensor.make()))
        _entry(archive, path.stem, "version", memoryview(b"3\n"))


def _entry(archive: zipfile.ZipFile, stem: str, name: str, data: memoryview) -> None:
    """An entry whose bytes begin at a multiple of 64, as torch.save lays them."""
    info = zipfile.ZipInfo(f"{stem}/{name}")
    info.file_size = data.nbytes
    large = data.nbytes > 2**30
    file: Any = archive.fp
    begin = file.tell() + 30 + len(info.filename.encode()) + (20 if large else 0)
    padding = (-(begin + 4)) % _ALIGNMENT
    info.extra = struct.pack("<HH", 0x4246, padding) + b"Z" * padding
    with archive.open(info, "w", force_zip64=large) as entry:
        entry.write(data)
