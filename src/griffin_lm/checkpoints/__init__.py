"""Weights on disk: names and bytes. It knows models; models never know it."""

from collections.abc import Callable
from dataclasses import fields
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import CheckpointCorrupt, CheckpointError, CheckpointMismatch, ConfigError
from ..models import Fingerprint, Griffin, ModelConfig, resolve_config
from ..shapes import JSON
from . import native
from .card import model_card
from .files import CONFIG, appearing, existing_folder, read_json, write_json
from .format import Format, Vocabulary
from .huggingface import HUGGINGFACE
from .names import Rename, check_nothing_left_over, expand
from .native import NATIVE
from .tensors import Weights, same_bits
from .writing import is_weights, write_weights

FORMATS: dict[str, Format] = {form.name: form for form in (NATIVE, HUGGINGFACE)}
Progress = Callable[[int, int], None]
AnyPath = str | PathLike[str]
Settings = ModelConfig | str | JSON

__all__ = ["FORMATS", "Format", "detect", "load_model", "read_config", "save_model"]


def detect(path: AnyPath) -> str:
    """The name of the format of a checkpoint's folder, a key of FORMATS.

    Raises CheckpointNotFound where there is none, CheckpointCorrupt where config.json is no JSON,
    CheckpointError where it is of a model that we do not know, listing those that we do.
    """
    return _recognise(existing_folder(Path(path)))[0].name


def read_config(path: AnyPath) -> ModelConfig:
    """The configuration of a checkpoint; reads config.json alone. Raises as `detect`."""
    form, config, file = _recognise(existing_folder(Path(path)))
    return form.read_config(config, file)


def load_model(
    path: AnyPath,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    config: Settings | None = None,
    progress: Progress | None = None,
) -> Griffin:
    """The model in a checkpoint's folder, whatever its format, tensor by tensor.

    dtype: of the weights once loaded; None: that of the embedding in the file. config: instead of
    the file's (a ModelConfig or a preset's name), or a dict of settings to overrule. progress:
    called with (bytes done, bytes in all) after every tensor. Memory: the result, and one tensor.

    Raises CheckpointError subclasses naming file and tensor, ConfigError for unknown settings.
    """
    folder = existing_folder(Path(path))
    form, plain, file = _recognise(folder)
    saved = form.read_config(plain, file) if config is None or isinstance(config, dict) else None
    final = _settle(saved, config)
    weights = Weights(folder)
    sums: dict[str, str] = {}
    if form.checked:
        for part in weights.files:
            sums |= native.check_file(part, saved)
    model = _empty_model(final, weights, file)
    parameters = dict(model.named_parameters())
    plan = expand(form.names, parameters, form.name)
    shapes = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
    check_nothing_left_over(plan, shapes, weights.shapes, form.duplicates, weights.where)
    for copy, original in form.duplicates.items():
        if copy in weights.home and not same_bits(weights.get(copy), weights.get(original)):
            raise CheckpointMismatch(
                f"{weights.home[copy].path}: {copy} differs from {original}; RecurrentGemma's "
                "head is its embedding, so this checkpoint is of another model: it cannot be used"
            )
    dtype = dtype or next((weights.dtype(row.theirs) for row in plan), torch.float32)
    fingerprint = Fingerprint(final.identity())
    done, total = 0, weights.nbytes
    for row in plan:
        source = _source(weights, row, shapes[row.ours], sums.get(row.theirs))
        fingerprint.add(row.ours, source)  # the file's own values, before any cast
        _assign(model, row.ours, source, device, dtype)
        done += source.nbytes
        if progress is not None:
            progress(done, total)
    if progress is not None and done < total:  # duplicates and padding were not read
        progress(total, total)
    model.origin.set_model(fingerprint.digest())
    return model


def save_model(
    model: Griffin,
    folder: AnyPath,
    format: str = "griffin",
    tokenizer: Vocabulary | None = None,
    card: str | None = None,
    max_shard_bytes: int = 5_000_000_000,
) -> None:
    """Writes a checkpoint's folder: config, weights, tokenizer files, README.md (the card).

    Everything is written aside first: the folder then holds the whole checkpoint, or what it held.
    Files of other names in an existing folder stay. Raises CheckpointMismatch for a model that the
    format cannot hold, CheckpointError where the disk refuses, ConfigError for an unknown format.
    """
    if format not in FORMATS:
        raise ConfigError(f"no format {format!r}; there are: {', '.join(FORMATS)}")
    form, folder = FORMATS[format], Path(folder)
    parameters = dict(model.named_parameters())
    if any(parameter.is_meta for parameter in parameters.values()):
        raise CheckpointError("a model on the device 'meta' has no weights to save")
    plan = expand(form.names, parameters, form.name)
    dtype = model.embed.weight.dtype
    files = form.describe(model.config, dtype, tokenizer)
    tensors = [(row.theirs, row.save(parameters[row.ours].detach())) for row in plan]

    def metadata(sums: dict[str, str]) -> dict[str, str]:
        return native.metadata(model.config, sums) if form.checked else {"format": "pt"}

    def obsolete(name: str, new: set[str]) -> bool:
        return name not in new and (is_weights(name) or name == "generation_config.json")

    with appearing(folder, obsolete) as aside:
        for name, value in files.items():
            write_json(aside / name, value)
        write_weights(aside, tensors, metadata, max_shard_bytes)
        if tokenizer is not None:
            tokenizer.save(aside)
        text = card if card is not None else model_card(folder.resolve().name, model, form)
        (aside / "README.md").write_text(text, encoding="utf-8")


def _recognise(folder: Path) -> tuple[Format, JSON, Path]:
    file = folder / CONFIG
    config = read_json(file)
    for form in FORMATS.values():
        if form.matches(config):
            return form, config, file
    found = config.get("model_type", config.get("format"))
    raise CheckpointError(
        f"{file} is of the model type {found!r:.60}; known: 'recurrent_gemma' (Hugging Face) and "
        "griffin-lm's own"
    )


def _settle(saved: ModelConfig | None, given: Settings | None) -> ModelConfig:
    """The config to build: the file's, another, or the file's with settings overruled by name."""
    if saved is None:
        assert given is not None and not isinstance(given, dict)
        return resolve_config(given)
    ours = {field.name for field in fields(saved)}
    for name, value in (given if isinstance(given, dict) else {}).items():
        holders = [m for m in saved.pattern if name in {f.name for f in fields(m)}]
        if name in ours:
            plain = saved.to_dict() | {name: value}
        elif holders:
            rows = [m.to_dict() | ({name: value} if m in holders else {}) for m in saved.pattern]
            plain = saved.to_dict() | {"pattern": rows}
        else:
            raise ConfigError(f"config has no setting {name!r}, nor has any of its mixers")
        saved = ModelConfig.from_dict(plain)
    return saved


def _empty_model(config: ModelConfig, weights: Weights, file: Path) -> Griffin:
    """On meta: shapes without memory. An absurd number of layers is refused before it is built."""
    if config.layers > len(weights.shapes):
        raise CheckpointMismatch(
            f"{file} speaks of {config.layers} layers, but {weights.where} holds only "
            f"{len(weights.shapes)} tensors; they are not of one checkpoint: fetch it again"
        )
    try:
        return Griffin(config, device="meta")
    except (RuntimeError, TypeError, ValueError, OverflowError) as error:
        raise CheckpointCorrupt(f"{file} describes no model that can be built: {error}") from error


def _source(weights: Weights, row: Rename, shape: tuple[int, ...], expected: str | None) -> Tensor:
    """A tensor of the file as ours is shaped, its checksum compared where it has one."""
    file = weights.home[row.theirs]
    if expected is not None and file.checksum(row.theirs) != expected:
        raise CheckpointCorrupt(
            f"{file.path}: tensor {row.theirs!r} is damaged (its checksum differs); fetch it "
            "or save it again"
        )
    tensor = file.get(row.theirs)
    return row.load(tensor[: row.their_shape(shape)[0]] if row.padded else tensor)


def _assign(
    model: nn.Module, name: str, source: Tensor, device: torch.device | str, dtype: torch.dtype
) -> None:
    """Puts a fresh, contiguous parameter in place of the one on meta: one copy, cast on the way."""
    tensor = torch.empty(source.shape, dtype=dtype, device=device).copy_(source)
    home, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(home), leaf, nn.Parameter(tensor))
