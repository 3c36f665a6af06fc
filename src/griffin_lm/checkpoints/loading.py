"""From a checkpoint to a model, tensor by tensor, whatever the format."""

import math
from collections.abc import Callable, Iterator
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import CheckpointCorrupt, CheckpointMismatch
from ..layers.quantized import quantize_weights
from ..layers.wide import parameter_dtype
from ..models import Fingerprint, Griffin, ModelConfig, resolve_config
from .detection import look_at, recognise
from .format import Dialect, Format, Place, Settings
from .names import Rename, Shape, by_theirs, check_nothing_left_over, expand
from .settings import overrule
from .source import Source
from .tensors import same_bits

FEWEST = 5  # tensors of a layer: a norm and an attention's four matrices, without an MLP
Progress = Callable[[int, int], None]
AnyPath = str | PathLike[str]


def detect(path: AnyPath) -> str:
    """The name of the format of a checkpoint, a folder or a file, a key of FORMATS.

    Raises CheckpointNotFound where there is none, CheckpointCorrupt where config.json is no JSON,
    CheckpointError where it is of a model that we do not know, listing those that we do.
    """
    return recognise(look_at(Path(path))).name


def read_config(path: AnyPath, config: Settings | None = None) -> ModelConfig:
    """The configuration of a checkpoint, as `load_model` would build it; reads no tensor.

    config: as in `load_model`. Raises as `detect`.
    """
    place, form, saved = _look(Path(path), config)
    if saved is None and form.infer is not None:
        return form.infer(form.open(place, None), config)
    return _settle(saved, config)


def open_source(path: AnyPath) -> Source:
    """The tensors of a checkpoint by the names in its files, opened and checked, not yet read.

    Raises CheckpointError subclasses naming the file.
    """
    place = look_at(Path(path))
    return recognise(place).open(place, None)


def load_model(
    path: AnyPath,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    config: Settings | None = None,
    progress: Progress | None = None,
    quantize: str | None = None,
) -> Griffin:
    """The model in a checkpoint, a folder or a file, whatever its format, tensor by tensor.

    dtype: of the weights once loaded; None: that of the embedding in the file. config: instead of
    the file's (a ModelConfig or a preset's name), or a dict of settings to overrule. progress:
    called with (bytes done, bytes in all) after every parameter. quantize: "int8" or "int4" rounds
    the matrices as they come (layers/quantized.py). Memory: the result, and one tensor.

    Raises CheckpointError subclasses naming file and tensor, ConfigError for unknown settings.
    """
    model, source, plan, shapes = _opened(Path(path), config)
    dtype = dtype or next((source.dtype(row.theirs) for row in plan), torch.float32)
    fingerprint = Fingerprint(model.config.identity())
    done, total = 0, source.nbytes
    for row, tensor in _parameters(source, plan, shapes):
        fingerprint.add(row.ours, tensor)  # the file's own values, before any cast
        _assign(model, row.ours, tensor, device, dtype, source.mapped)
        if quantize is not None:
            quantize_weights(model.get_submodule(row.ours.rpartition(".")[0]), quantize)
        done += tensor.nbytes
        del tensor  # before the next is read
        if progress is not None:
            progress(done, total)
    if progress is not None and done < total:  # duplicates and padding were not read
        progress(total, total)
    model.origin.set_model(fingerprint.digest())
    return model


def read_parameters(
    path: AnyPath, config: Settings | None = None
) -> tuple[ModelConfig, Iterator[tuple[str, Tensor]]]:
    """The config, and every parameter by our name and in our shape, as the files have it.

    One at a time, in the files' order, and not to be written to: in memory-mapped formats they are
    views of the files, which take no memory. config, checks and errors: as in `load_model`.
    """
    model, source, plan, shapes = _opened(Path(path), config)
    found = ((row.ours, tensor) for row, tensor in _parameters(source, plan, shapes))
    return model.config, found


def _opened(
    path: Path, config: Settings | None
) -> tuple[Griffin, Source, list[Rename], dict[str, Shape]]:
    """The model on meta, the files, and which of their tensors become which parameters."""
    place, form, saved = _look(path, config)
    dialect = form.dialect(place.config)
    source = form.open(place, saved)
    shaped = saved is None and form.infer is not None
    final = form.infer(source, config) if shaped and form.infer else _settle(saved, config)
    model = _empty_model(final, source, source.where if shaped else place.file)
    parameters = dict(model.named_parameters())
    plan = expand(dialect.names, parameters, dialect.model_type)
    shapes = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
    _check(source, plan, shapes, dialect)
    return model, source, plan, shapes


def _look(path: Path, given: Settings | None) -> tuple[Place, Format, ModelConfig | None]:
    """What lies there, and what its config.json says, unless that is missing or not wanted."""
    place = look_at(path)
    form = recognise(place)
    if place.config is None or not form.carries(place):
        return place, form, None
    if given is not None and not isinstance(given, dict):
        return place, form, None
    return place, form, form.dialect(place.config).read_config(place.config, place.file)


def _settle(saved: ModelConfig | None, given: Settings | None) -> ModelConfig:
    """The config to build: the file's, another, or the file's with settings overruled by name."""
    if given is not None and not isinstance(given, dict):
        return resolve_config(given)
    assert saved is not None
    return saved if given is None else overrule(saved, given)


def _empty_model(config: ModelConfig, source: Source, file: Path) -> Griffin:
    """On meta: shapes without memory. An absurd number of layers is refused before it is built."""
    if config.layers * FEWEST > len(source.shapes):  # 40 kB of Python objects a layer
        raise CheckpointMismatch(
            f"{file} speaks of {config.layers} layers, but {source.where} holds only "
            f"{len(source.shapes)} tensors; they are not of one checkpoint: fetch it again"
        )
    try:
        return Griffin(config, device="meta")
    except (RuntimeError, TypeError, ValueError, OverflowError) as error:
        raise CheckpointCorrupt(f"{file} describes no model that can be built: {error}") from error


def _check(source: Source, plan: list[Rename], shapes: dict[str, Shape], dialect: Dialect) -> None:
    """Names and shapes agree, nothing is left over, and what stands twice is equal."""
    named = {row.theirs for row in plan}
    copies = {k: v for k, v in dialect.duplicates.items() if k not in named}
    check_nothing_left_over(plan, shapes, source.shapes, copies, source.where)
    for copy, original in copies.items():
        if copy in source.shapes and not same_bits(source.get(copy), source.get(original)):
            raise CheckpointMismatch(
                f"{source.where}: {copy} differs from {original}; this model's head is its "
                "embedding, so the checkpoint is of another model: it cannot be used"
            )


def _parameters(
    source: Source, plan: list[Rename], shapes: dict[str, Shape]
) -> Iterator[tuple[Rename, Tensor]]:
    """Every parameter as ours is shaped; each of their tensors is read once.

    Where reading one takes memory of its own the largest come first, while little else is there.
    """
    groups = by_theirs(plan)
    order = list(groups)
    if not source.mapped:
        order.sort(key=lambda name: -math.prod(source.shapes[name]))
    for name in order:
        tensor = source.get(name)
        for row in groups[name]:
            yield row, row.take(tensor, shapes[row.ours])
        del tensor  # before the next is read


def _assign(
    model: nn.Module,
    name: str,
    source: Tensor,
    device: torch.device | str,
    dtype: torch.dtype,
    mapped: bool,
) -> None:
    """Puts a fresh, contiguous parameter in place of the one on meta: one copy, cast on the way.

    A tensor that is not mapped, and is what the parameter must be, becomes it without a copy.
    """
    home, _, leaf = name.rpartition(".")
    owner = model.get_submodule(home)
    kept = parameter_dtype(owner, leaf, dtype)
    tensor = source
    alone = not mapped and source.untyped_storage().nbytes() == source.nbytes
    as_it_is = source.dtype == kept and source.device == torch.device(device)
    if not (alone and as_it_is and source.is_contiguous()):
        tensor = torch.empty(source.shape, dtype=kept, device=device).copy_(source)
    setattr(owner, leaf, nn.Parameter(tensor))
