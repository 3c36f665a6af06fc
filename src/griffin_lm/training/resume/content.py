"""What a training checkpoint holds, and how: weights as ours, the rest without pickled code.

config.json, model.safetensors   a checkpoint of ours: `griffin generate out/step-N` reads it
training.pt                      all else, as `torch.load(weights_only=True)` takes it
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...checkpoints.files import CONFIG, read_json, write_json
from ...checkpoints.format import Target
from ...checkpoints.native import NATIVE, OURS, CheckedWeights
from ...checkpoints.source import Outgoing
from ...checkpoints.tensors import CODES
from ...errors import CheckpointCorrupt, TrainingError
from ...models import Griffin, ModelConfig
from ...models.state import State
from ...shapes import JSON
from . import disk

REST = "training.pt"
_SHARD = 5 * 10**9  # bytes
_PLAIN = (str, bytes, int, float, bool, type(None), torch.dtype)


def plain(value: Any, copy: bool, where: str = "content") -> Any:
    """The value with its tensors on the CPU, as it will be read: dicts of any kind become dict.

    copy: nothing is shared, so that later changes do not reach it. Raises TrainingError, naming the
    place, for anything but tensors, numbers, text and their dicts, lists, tuples and sets: loading
    would refuse it.
    """
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=copy)
    if isinstance(value, dict):
        pairs: dict[Any, Any] = value
        return {key: plain(one, copy, f"{where}[{key!r}]") for key, one in pairs.items()}
    if type(value) in (list, tuple, set):
        items: list[Any] = list(value)
        if not all(type(one) in _PLAIN for one in items):
            items = [plain(one, copy, f"{where}[{i}]") for i, one in enumerate(items)]
        return type(value)(items)
    if type(value) not in _PLAIN:
        raise TrainingError(
            f"{where} is a {type(value).__name__}, which a checkpoint cannot hold; make it tensors "
            "and plain values in to_dict()"
        )
    return value


def write(content: dict[str, Any], folder: Path) -> None:
    """Writes what Trainer.to_dict gave. Raises OSError.

    content["config"]: the model's, as ModelConfig.to_dict; content["model"]: name -> tensor. What
    safetensors has no word for (integers) goes with the rest.
    """
    config = ModelConfig.from_dict(content["config"])
    model: dict[str, Tensor] = content["model"]
    weights = {name: tensor for name, tensor in model.items() if tensor.dtype in CODES}
    rest = {key: value for key, value in content.items() if key not in ("model", "config")}
    others = {name: tensor for name, tensor in model.items() if name not in weights}
    dtype = next(iter(weights.values())).dtype if weights else torch.float32
    described = OURS.describe(config, dtype, None)[CONFIG]
    tensors = [
        Outgoing(name, tuple(tensor.shape), tensor.dtype, lambda tensor=tensor: tensor)
        for name, tensor in weights.items()
    ]

    def fill(_: Path) -> None:
        NATIVE.write(Target(folder, folder.name, config, _SHARD), tensors)

    disk.DISK.write(folder / CONFIG, lambda path: write_json(path, described))
    disk.DISK.write(folder / "model.safetensors", fill)
    disk.DISK.write(folder / REST, lambda path: pickle({"others": others, "rest": rest}, path))


def read(folder: Path) -> dict[str, Any]:
    """The inverse of write; verify the folder first. Raises CheckpointCorrupt."""
    config = OURS.read_config(read_json(folder / CONFIG), folder / CONFIG)
    source = CheckedWeights(folder, config)
    saved = unpickle(folder / REST, "rest", "others")
    rest, others = dict(saved["rest"]), dict(saved["others"])
    # copies: the file's memory map would keep a pruned checkpoint's room on the disk
    model = {name: source.get(name).clone() for name in source.shapes} | others
    return rest | {"model": model, "config": config.to_dict()}


def unpickle(path: Path, *keys: str) -> dict[str, Any]:
    """The inverse of pickle, for a dict with these keys. Raises CheckpointCorrupt."""
    try:
        saved = dict(torch.load(path, map_location="cpu", weights_only=True))
        return saved | {key: saved[key] for key in keys}
    except Exception as error:  # torch raises many kinds for a broken file
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointCorrupt(
            f"{path} cannot be read ({reason}); remove {path.parent} and use --resume auto"
        ) from error


def state_to_list(state: State) -> list[Tensor]:
    """A carried state as plain tensors."""
    layers = [tensor for layer in state.layers for tensor in layer]
    return [*layers, state.read, state.position, state.due]


def state_from_list(model: Griffin, tensors: list[Tensor]) -> State:
    """The inverse of state_to_list."""
    left = iter(tensors)
    shape = model.empty_state(1)
    layers = tuple(type(layer)(*(next(left) for _ in layer)) for layer in shape.layers)
    return State(layers, next(left), next(left), next(left), model.origin)


def refuse_other_config(saved: JSON, wanted: JSON, where: Path) -> None:
    """Raises TrainingError, naming the fields, unless both configs are the same."""
    if differences := list(_differences(saved, wanted, "")):
        raise TrainingError(
            f"the run in {where} is of another model ({'; '.join(differences[:8])}); choose "
            "another --out, or the recipe that it was begun with"
        )


def _differences(saved: Any, wanted: Any, name: str) -> Iterator[str]:
    if isinstance(saved, dict) and isinstance(wanted, dict):
        for key in [*saved, *(key for key in wanted if key not in saved)]:
            inner = f"{name}.{key}" if name else str(key)
            missing = "its default"  # fields stay out of to_dict while they have it
            yield from _differences(saved.get(key, missing), wanted.get(key, missing), inner)
    elif isinstance(saved, list) and isinstance(wanted, list) and len(saved) == len(wanted):
        for i, (old, new) in enumerate(zip(saved, wanted, strict=True)):
            yield from _differences(old, new, f"{name}[{i}]")
    elif saved != wanted:
        yield f"{name}: {_short(saved)} there, {_short(wanted)} here"


def _short(value: Any) -> str:
    return str(value) if len(str(value)) <= 60 else f"{str(value)[:57]}..."


def pickle(value: Any, path: Path) -> None:
    """torch.save, whose "unexpected pos" for a full disk becomes the OSError that it was."""
    with path.open("wb") as file:
        try:
            torch.save(value, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):
                raise error.__context__ from error
            raise
