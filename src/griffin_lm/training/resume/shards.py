"""What a checkpoint of several processes holds: each writes what it keeps, any number reads it.

config.json               the model's
training.pt               what all have in common, by the first process
rank-0.pt ...             what is each one's own: random numbers, a carried state
shards/*.safetensors      weights and moments, a file a process, by torch's DCP

The own metadata of DCP (torch.distributed.checkpoint) is a pickle, which nothing here may read
(docs/decisions/0006); its safetensors storage keeps each shard's offsets in the file's header.
"""

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...checkpoints.files import CONFIG, read_json, write_json
from ...checkpoints.native import OURS, SHARDS
from ...errors import CheckpointCorrupt, TrainingError
from ...models import ModelConfig
from ...shapes import JSON
from . import content, disk, manifest


class ProcessFailed(OSError):
    """A disk refused one of the processes, whose number the reason begins with."""


_OWN = ("state", "random")  # parts of Trainer.to_dict that differ from process to process
Making = Callable[[tuple[int, ...], torch.dtype], Tensor]


def are_in(folder: Path) -> bool:
    """Whether a checkpoint was written by several processes."""
    return (folder / SHARDS).is_dir()


def write(value: dict[str, Any], folder: Path, rank: int, group: Any) -> JSON:
    """One process's part of what Trainer.to_dict gave; all of `group` call it together.

    Returns the manifest's rows of the files that it wrote, which are durable. Raises OSError on
    every process where one's disk refused.
    """
    from torch.distributed.tensor import DTensor

    tensors: dict[str, Tensor] = {}
    places: dict[str, list[Any]] = {}
    common = {key: one for key, one in value.items() if key not in _OWN}
    for number, (place, one) in enumerate(_leaves(common, ())):
        if isinstance(one, DTensor):
            tensors[f"{number}"], places[f"{number}"] = one, list(place)
    kept = _without(common, DTensor)
    del kept["config"]
    _write_shards(tensors, folder / SHARDS, group)
    names = [path.name for path in (folder / SHARDS).glob(f"shard-{rank + 1:05d}-*")]
    written = [folder / SHARDS / name for name in names]
    own = {key: value[key] for key in _OWN if key in value}
    written.append(_written(folder / f"rank-{rank}.pt", lambda path: content.pickle(own, path)))
    if rank == 0:
        config = ModelConfig.from_dict(value["config"])
        described = OURS.describe(config, torch.float32, None)[CONFIG]
        rest = {"rest": kept, "places": places}
        written += [
            _written(folder / CONFIG, lambda path: write_json(path, described)),
            _written(folder / content.REST, lambda path: content.pickle(rest, path)),
        ]
    for path in {*written, *(path.parent for path in written)}:
        disk.DISK.fsync(path)
    return {path.relative_to(folder).as_posix(): manifest.row(path) for path in written}


def read(folder: Path, rank: int = 0, size: int = 1, make: Making | None = None) -> dict[str, Any]:
    """The inverse of write for process `rank` of `size`, whatever their number was.

    make: from shape and dtype to the tensor that is filled, a DTensor where this process keeps a
    part of it; without it, whole tensors. Reads need no other process. Raises CheckpointCorrupt,
    TrainingError for carried states of another number of processes.
    """
    config = OURS.read_config(read_json(folder / CONFIG), folder / CONFIG)
    saved = content.unpickle(folder / content.REST, "rest", "places")
    value: dict[str, Any] = dict(saved["rest"])
    found = _read_shards(folder / SHARDS, make or _whole)
    for key, place in saved["places"].items():
        if key not in found:
            raise CheckpointCorrupt(f"{folder / SHARDS} lacks {place}; remove {folder}")
        inner: Any = value
        for step in place[:-1]:
            inner = inner[step]
        inner[place[-1]] = found[key]
    value["config"] = config.to_dict()
    return value | _own(folder, rank, size)


def _own(folder: Path, rank: int, size: int) -> dict[str, Any]:
    """What is this process's own; less of it where the number of processes is another now."""
    files = sorted(folder.glob("rank-*.pt"))
    if not files:
        raise CheckpointCorrupt(f"{folder} has no rank-0.pt; remove the folder")
    if len(files) != size:
        refuse_carried(content.unpickle(files[0], "state")["state"], folder, len(files), size)
    path = folder / f"rank-{rank}.pt"
    # one that was not there draws from its own beginning
    return content.unpickle(path) if path in files else {"state": None, "random": None}


def refuse_carried(state: Any, folder: Path, saved: int, size: int) -> None:
    """Raises TrainingError if rows carry a state that this number of processes can't share out."""
    if state is not None and saved != size:
        raise TrainingError(
            f"{folder} carries the states of rows of {saved} process{'es' if saved > 1 else ''}; "
            f"go on with as many, not {size}"
        )


def _whole(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="cpu")


def _leaves(value: Any, place: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], Any]]:
    if isinstance(value, dict):
        pairs: dict[Any, Any] = value
        for key, one in pairs.items():
            yield from _leaves(one, (*place, key))
    else:
        yield place, value


def _without(value: Any, kind: type) -> Any:
    """The same dicts, less their values of that type."""
    if not isinstance(value, dict):
        return value
    pairs: dict[Any, Any] = value
    return {key: _without(one, kind) for key, one in pairs.items() if not isinstance(one, kind)}


def _written(path: Path, fill: Callable[[Path], object]) -> Path:
    disk.DISK.write(path, fill)
    return path


def _write_shards(tensors: dict[str, Tensor], folder: Path, group: Any) -> None:
    """This process's parts, by DCP, through `disk` so that tests can let it fail."""
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    class Writer(HuggingFaceStorageWriter):
        """As it is, but for the folder's entry in `disk`."""

        def write_data(self, plan: Any, planner: Any) -> Any:
            """Called on each process once all agree who writes what."""
            made: list[Any] = []
            disk.DISK.write(folder, lambda _: made.append(write_data(plan, planner)))
            return made[0]

    writer = Writer(str(folder), save_distributed=True)
    write_data = super(Writer, writer).write_data
    try:
        save(tensors, storage_writer=writer, process_group=group)
    except CheckpointException as error:
        raise _as_os_error(error) from error


def _as_os_error(error: Any) -> OSError:
    """The first process's failure, with its number; what is no matter of disks stays visible."""
    rank, (reason, _) = min(error.failures.items())
    if isinstance(reason, OSError):
        return ProcessFailed(reason.errno or 0, f"process {rank}: {reason.strerror or reason}")
    return ProcessFailed(0, f"process {rank}: {type(reason).__name__}: {reason}")


def _read_shards(folder: Path, make: Making) -> dict[str, Tensor]:
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata
    from torch.distributed.checkpoint.state_dict_loader import load

    try:
        described = HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
        tensors = {
            key: make(tuple(one.size), one.properties.dtype)
            for key, one in described.items()
            if isinstance(one, TensorStorageMetadata)
        }
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled")  # it is meant
            reader = HuggingFaceStorageReader(str(folder))
            load(tensors, storage_reader=reader, no_dist=True)
    except (CheckpointException, Exception) as error:  # a broken file: many kinds
        reason = (str(error).splitlines() or [type(error).__name__])[-1]
        raise CheckpointCorrupt(
            f"{folder} cannot be read ({reason}); remove {folder.parent} and use --resume auto"
        ) from error
    return tensors
