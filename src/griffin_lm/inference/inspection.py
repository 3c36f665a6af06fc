"""What a model is, what files it has and what it needs, before any weight is read."""

from collections.abc import Iterable
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import torch

from ..checkpoints import detect, open_source, read_config, saved_quantization
from ..checkpoints.hub import (
    ALIASES,
    HubId,
    Remote,
    Watch,
    inspect_remote,
    is_offline,
    memory_at_hand,
    parse,
    preset_of,
    snapshot,
)
from ..checkpoints.quantization import Quantization
from ..checkpoints.settings import overrule
from ..checkpoints.tensors import STORED_CODES as CODES
from ..errors import CheckpointNotFound, ConfigError, GriffinError
from ..models import PRESETS, Griffin, ModelConfig, resolve_config
from ..models.sizes import QUANTISED, memory, parameter_counts, quantised_bytes, weight_bytes
from ..shapes import JSON
from .instruction import is_instruction_tuned
from .loading import pick_device
from .resolution import BUNDLED, find

DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True)
class _Found:
    """What a name led to: files here, files on the hub, or a configuration alone."""

    path: Path | None = None
    remote: Remote | None = None
    hub: HubId | None = None
    preset: ModelConfig | None = None


def inspect(
    source: str | PathLike[str],
    config: ModelConfig | str | JSON | None = None,
    offline: bool | None = None,
    watch: Watch | None = None,
) -> JSON:
    """Figures of a model: a source as `load` takes it, or a preset's name.

    Of a hub id only the small files are fetched, and the headers of safetensors by range; of an
    alias that cannot be reached, the figures of its preset are given and watch.notice says why.
    config: as in `load`. Raises as `load` does before it reads weights.

    {"model", "path", "hub", "instruction_tuned", "config", "parameters", "parts", "memory": {dtype:
    bytes}, "weights_if_quantised", "at_hand", "files"}; the last is missing without files. Of a
    quantised checkpoint here, "memory" is of the weights as they are stored, and "weight_types" has
    a row for each type: {"weights", "parameters", "bytes", "bits_per_weight"}.
    """
    found = _look(source, offline, watch or Watch())
    settled = _config(found, config)
    name = found.hub.repo if found.hub else fspath(source)
    where = found.remote.snapshot.path if found.remote else found.path
    figures: JSON = {
        "model": fspath(source),
        "path": str(found.path) if found.path else None,
        "hub": _on_hub(found),
        "instruction_tuned": is_instruction_tuned(where or Path(name), name),
        "config": settled.to_dict(),
    }
    quantization = None if found.path is None else saved_quantization(found.path)
    figures |= needs(settled, quantization)
    if found.path is not None:
        figures["files"] = _files_here(found.path)
    elif found.remote is not None:
        figures["files"] = _files_there(found.remote)
    return figures


def needs(config: ModelConfig, quantization: Quantization | None = None) -> JSON:
    """Parameters, bytes and what is at hand here."""
    kinds = {} if quantization is None else dict(quantization.kinds)
    parts = parameter_counts(config)
    device = pick_device()
    at_hand = memory_at_hand(device)
    by_dtype = {name: memory(config, getattr(torch, name), kinds) for name in DTYPES}
    types = {} if quantization is None else {"weight_types": weight_types(config, quantization)}
    return types | {
        "parameters": sum(parts.values()),
        "parts": parts,
        "memory": {name: bytes_.to_dict() for name, bytes_ in by_dtype.items()},
        "weights_if_quantised": {kind: quantised_bytes(config, kind) for kind in QUANTISED},
        "at_hand": {
            "device": str(device),
            "free": at_hand.free,
            "total": at_hand.total,
            "fits": {name: bytes_.peak <= at_hand.free for name, bytes_ in by_dtype.items()},
        },
    }


def _look(source: str | PathLike[str], offline: bool | None, watch: Watch) -> _Found:
    name = fspath(source)
    if name in BUNDLED or Path(name).expanduser().exists():
        return _Found(path=find(source))
    hub = parse(name) if isinstance(source, str) else None
    if hub is None:
        if name in PRESETS:
            return _Found(preset=PRESETS[name])
        return _Found(path=find(source))  # says what is wrong
    try:
        return _Found(path=snapshot(hub, offline=True).path, hub=hub)
    except CheckpointNotFound as error:
        missing = error
    preset = preset_of(hub) if name.partition("@")[0] in ALIASES else None
    try:
        if is_offline(offline):
            raise missing
        return _Found(remote=inspect_remote(hub), hub=hub)
    except GriffinError as error:
        if preset is None:
            raise
        watch.notice(f"{error}. Below are the figures of its configuration, without its files")
        return _Found(hub=hub, preset=preset)


def _config(found: _Found, given: ModelConfig | str | JSON | None) -> ModelConfig:
    if found.path is not None:
        return read_config(found.path, given)
    if isinstance(given, str | ModelConfig):
        return resolve_config(given)
    own = found.preset or (found.remote and found.remote.config)
    if not own:
        raise ConfigError(
            f"{found.hub} carries no config, and its name tells of none: name one with --config"
        )
    return overrule(own, given or {})


def _on_hub(found: _Found) -> JSON | None:
    if found.hub is None:
        return None
    commit = found.remote.snapshot.commit if found.remote else None
    return {"id": found.hub.repo, "revision": found.hub.revision, "commit": commit}


def weight_types(config: ModelConfig, quantization: Quantization) -> dict[str, JSON]:
    """By type of weight, scales included: how many, parameters, bytes, bits a parameter."""
    plain = str(quantization.dtype).removeprefix("torch.")
    sizes = weight_bytes(config, quantization.dtype, quantization.kinds)
    rows: dict[str, JSON] = {}
    for name, parameter in Griffin(config, "meta").named_parameters():
        kind = quantization.kinds.get(name, plain)
        row = rows.setdefault(kind, {"weights": 0, "parameters": 0, "bytes": 0})
        row["weights"] += 1
        row["parameters"] += parameter.numel()
        row["bytes"] += sizes[name]
    for row in rows.values():
        row["bits_per_weight"] = round(8 * row["bytes"] / row["parameters"], 3)
    return rows


def _files_here(path: Path) -> JSON:
    source = open_source(path)
    rows = ((CODES[source.dtype(name)], shape) for name, shape in source.shapes.items())
    files = {file.name: file.stat().st_size for file in source.files}
    return {"format": detect(path), "dtypes": _by_dtype(rows), "files": files}


def _files_there(remote: Remote) -> JSON:
    rows = ((row.code, row.shape) for file in remote.tensors.values() for row in file.values())
    form = detect(remote.snapshot.path) if remote.tensors else None
    return {
        "format": form,
        "chosen": remote.snapshot.words,
        "dtypes": _by_dtype(rows),
        "files": remote.sizes,
    }


def _by_dtype(rows: Iterable[tuple[str, tuple[int, ...]]]) -> dict[str, dict[str, int]]:
    """Tensors and bytes by the code of their dtype; a code that we cannot read counts no bytes."""
    sizes = {code: dtype.itemsize for dtype, code in CODES.items()}
    found: dict[str, dict[str, int]] = {}
    for code, shape in rows:
        row = found.setdefault(code, {"tensors": 0, "bytes": 0})
        row["tensors"] += 1
        row["bytes"] += torch.Size(shape).numel() * sizes.get(code, 0)
    return found


def fits(figures: dict[str, Any]) -> str:
    """In words: which dtypes find memory here."""
    at_hand = figures["at_hand"]
    able = [name for name, fits_ in at_hand["fits"].items() if fits_]
    return f"fits as {' and '.join(able)}" if able else "does not fit at any dtype just now"
