"""From a checkpoint to a model, tensor by tensor, whatever the format."""

import math
from collections.abc import Callable, Iterator
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..errors import CheckpointCorrupt, CheckpointMismatch
from ..layers.quantized import (
    QuantizedMatrix,
    has_matrix,
    matrices,
    replace_weight,
    stored_tensors,
)
from ..layers.wide import parameter_dtype
from ..models import Fingerprint, Griffin, ModelConfig, resolve_config
from .adapters import read_adapter
from .detection import look_at, recognise
from .format import Dialect, Format, Place, Settings
from .names import Rename, Shape, by_theirs, check_nothing_left_over, expand
from .native import NATIVE
from .quantization import Quantization, check_dtypes, read_quantization
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
    adapter: AnyPath | None = None,
    rounded: str = "",
) -> Griffin:
    """The model in a checkpoint, a folder or a file, whatever its format, tensor by tensor.

    dtype: of the weights once loaded; None: that of the embedding in the file. config: instead of
    the file's (a ModelConfig or a preset's name), or a dict of settings to overrule. progress:
    called with (bytes done, bytes in all) after every parameter. quantize: "int8" or "int4" rounds
    the matrices as they come (layers/quantized.py), those whose names begin with `rounded`; what
    was saved in that kind is taken as it is.
    adapter: a folder of LoRA that is added to the weights before they are cast or rounded; beside
    a matrix that was saved rounded it stays what it is, two thin matrices. Memory: the result, and
    one tensor.

    Raises CheckpointError subclasses naming file and tensor, ConfigError for unknown settings.
    """
    opened = _opened(Path(path), config)
    model, source, saved = opened.model, opened.source, opened.quantization
    if saved is not None:
        quantize = saved.left_to_round(quantize, source.where)
        dtype = dtype or saved.dtype
    dtype = dtype or next((source.dtype(row.theirs) for row in opened.plan), torch.float32)
    fingerprint = Fingerprint(model.config.identity())
    added = None if adapter is None else read_adapter(adapter, model.config, opened.dense)
    base = Fingerprint(model.config.identity())
    done, total = 0, source.nbytes
    for row, tensor in _parameters(opened):
        done += tensor.nbytes
        if added is not None:
            base.add(row.ours, tensor)
            tensor = added.change(row.ours, tensor)
        fingerprint.add(row.ours, tensor)  # the source's own values, before any cast
        home, _, leaf = row.ours.rpartition(".")
        owner = model.get_submodule(home)
        if quantize is not None and has_matrix(owner) and row.ours.startswith(rounded):
            matrix = QuantizedMatrix.of(tensor, quantize, dtype)  # rounded once, not cast before
            replace_weight(owner, matrix.to(device))
        else:
            _assign(owner, leaf, tensor, device, dtype, source.mapped)
        del tensor  # before the next is read
        if progress is not None:
            progress(done, total)
    if progress is not None and done < total:  # duplicates and padding were not read
        progress(total, total)
    if added is not None:
        added.check_base(base.digest() if saved is None else saved.source)
    if saved is None:
        model.origin.set_model(fingerprint.digest())
        return model
    if added is not None:
        for name, matrix in matrices(model).items():
            if name in added.factors and name in saved.kinds:
                matrix.add(*added.factors[name].thin())
    model.origin.set_model(saved.source if added is None else added.over(saved.source))
    return model


def read_parameters(
    path: AnyPath, config: Settings | None = None
) -> tuple[ModelConfig, Iterator[tuple[str, Tensor]]]:
    """The config, and every parameter by our name and in our shape, as the files have it.

    One at a time, in the model's order, and not to be written to: in memory-mapped formats they are
    views of the files, which take no memory. Of a quantised matrix come its tensors. config, checks
    and errors: as in `load_model`.
    """
    opened = _opened(Path(path), config)
    found = ((row.ours, tensor) for row, tensor in _parameters(opened))
    return opened.model.config, found


def saved_quantization(path: AnyPath) -> Quantization | None:
    """How the matrices of a checkpoint are quantised; None where they are not. Reads no tensor.

    Raises as `detect`, and CheckpointCorrupt.
    """
    place = look_at(Path(path))
    return read_quantization(place) if recognise(place) is NATIVE else None


class _Opened(NamedTuple):
    """The model on meta, the files, and which of their tensors become which of its tensors.

    shapes: of its tensors; dense: of its weights, whatever they are stored in.
    """

    model: Griffin
    source: Source
    plan: list[Rename]
    shapes: dict[str, Shape]
    dense: dict[str, Shape]
    quantization: Quantization | None


def _opened(path: Path, config: Settings | None) -> _Opened:
    place, form, saved = _look(path, config)
    dialect = form.dialect(place.config)
    source = form.open(place, saved)
    shaped = saved is None and form.infer is not None
    final = form.infer(source, config) if shaped and form.infer else _settle(saved, config)
    where = source.where if shaped else place.file
    model = _empty_model(final, source, where)
    dense = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    quantization = read_quantization(place) if form is NATIVE else None
    if quantization is not None:
        quantization.prepare(model, where)
    wanted = stored_tensors(model)
    plan = expand(dialect.names, wanted, dialect.model_type)
    shapes = {name: tuple(tensor.shape) for name, tensor in wanted.items()}
    _check(source, plan, shapes, dialect)
    if quantization is not None:
        check_dtypes(model, plan, source, {name: tensor.dtype for name, tensor in wanted.items()})
    return _Opened(model, source, plan, shapes, dense, quantization)


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


def _parameters(opened: _Opened) -> Iterator[tuple[Rename, Tensor]]:
    """Every parameter as ours is shaped; each of their tensors is read once.

    Where reading one takes memory of its own the largest come first, while little else is there.
    """
    source = opened.source
    groups = by_theirs(opened.plan)
    order = list(groups)
    if not source.mapped:
        order.sort(key=lambda name: -math.prod(source.shapes[name]))
    for name in order:
        tensor = source.get(name)
        for row in groups[name]:
            yield row, row.take(tensor, opened.shapes[row.ours])
        del tensor  # before the next is read


def _assign(
    owner: nn.Module,
    leaf: str,
    source: Tensor,
    device: torch.device | str,
    dtype: torch.dtype,
    mapped: bool,
) -> None:
    """Puts a fresh, contiguous tensor in place of the one on meta: one copy, cast on the way.

    A tensor that is not mapped, and is what must stand there, gets there without a copy.
    """
    packed = isinstance(owner, QuantizedMatrix)
    kept = source.dtype if packed else parameter_dtype(owner, leaf, dtype)
    tensor = source
    alone = not mapped and source.untyped_storage().nbytes() == source.nbytes
    as_it_is = source.dtype == kept and source.device == torch.device(device)
    if not (alone and as_it_is and source.is_contiguous()):
        tensor = torch.empty(source.shape, dtype=kept, device=device).copy_(source)
    if packed:
        owner.put({leaf: tensor})
        owner.dtype = dtype
    else:
        setattr(owner, leaf, nn.Parameter(tensor))
