"""From one format of checkpoints to another, tensor by tensor, and proof that nothing changed."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..checkpoints import FORMATS, detect, load_model, read_parameters, saved_quantization
from ..checkpoints.adapters import read_adapter, takes_turns
from ..checkpoints.detection import folders_beside
from ..checkpoints.names import expand
from ..checkpoints.quantization import Quantization
from ..checkpoints.saving import quantised_tensors
from ..checkpoints.tensors import same_bits
from ..errors import CheckpointCorrupt, CheckpointError, CheckpointMismatch, ConfigError
from ..layers.quantized import QuantizedMatrix
from ..models import Fingerprint, Griffin, ModelConfig, build
from ..models.sizes import parameter_count
from ..text import Tokenizer, load_tokenizer
from .calibration import Progress, own_text, text_of
from .calibration import calibrate as fit
from .instruction import is_instruction_tuned, read_stops
from .language_model import LanguageModel, save

OURS = "Written by griffin-lm in the format"  # a card that was made, not written: it is made anew


@dataclass(frozen=True)
class Converted:
    """What `convert` did. files: bytes by name, all that the folder holds now."""

    source_format: str
    format: str
    parameters: int
    dtypes: tuple[str, ...]
    files: dict[str, int]
    tokenizer: bool
    checked: bool
    seconds: float


def convert(
    source: Path,
    target: str | PathLike[str],
    format: str,
    *,
    dtype: torch.dtype | None = None,
    config: ModelConfig | str | dict[str, Any] | None = None,
    tokenizer: str | PathLike[str] | None = None,
    overwrite: bool = False,
    check: bool = True,
    name: str = "",
    progress: Progress = lambda what, done, total: None,
    adapter: str | PathLike[str] | None = None,
    quantize: str | None = None,
    calibrate: str | PathLike[str] | None = None,
) -> Converted:
    """Writes the checkpoint at `source` to `target` in a format of FORMATS.

    dtype: None keeps each tensor's own. config, tokenizer: as in `load`; a checkpoint without a
    tokenizer is converted without. overwrite: `target` may hold files. check: read everything back
    and compare it to the bit. name: what the source was asked for by, which may say that it is
    instruction-tuned. progress: (what, done, in all), in parameters. adapter: a folder of LoRA,
    added to the weights; what it changes is rounded once, to the dtype that is written. quantize:
    "int8" or "int4" rounds the matrices, one at a time; a source in that kind is taken as it is.
    calibrate: with "int4", "own" or a text file to fit the rounding to (calibration.py); the model
    is then loaded whole, in one dtype, and reads.

    Otherwise weights are not held in memory where the source is memory-mapped. Raises
    CheckpointMismatch,
    naming the formats that can, where this one cannot hold the model; CheckpointError for a target
    that is in use or is not what was written; what loading and saving raise.
    """
    began = time.perf_counter()
    target = Path(target)
    if format not in FORMATS:
        raise ConfigError(f"no format {format!r}; there are: {', '.join(FORMATS)}")
    _refuse_in_use(source, target, overwrite)
    before = saved_quantization(source)
    if before is not None:
        quantize = before.left_to_round(quantize, source)
        if adapter is not None:
            raise CheckpointMismatch(
                f"{source} is quantised, and an adapter can't be merged into it without rounding "
                "twice: convert the checkpoint that it was made of, or load the two with adapter="
            )
    if calibrate is not None and (quantize != "int4" or before is not None):
        raise ConfigError("calibrate goes with quantize='int4', and weights not rounded before")
    vocabulary = find_tokenizer(source, tokenizer)

    def reading(done: int, total: int) -> None:
        progress("reading", done, total)

    if calibrate is None:
        model = borrowed(source, config, dtype, reading, adapter)
        _refuse_unfit(model, format)
    else:
        model = load_model(source, "cpu", dtype, config, reading, adapter=adapter)
        _refuse_unfit(model, format)
        if vocabulary is None:
            raise ConfigError("to calibrate on text needs the model's tokenizer: give tokenizer=")
        progress("calibrating", 0, len(model.blocks))
        text = (
            own_text(model, vocabulary)
            if calibrate == "own"
            else text_of(Path(calibrate), vocabulary)
        )
        fit(model, text, progress)
    card = _card(source) if adapter is None else None
    progress("writing", 0, 1)
    if vocabulary is None:
        save(model, target, format, card, quantize)
    else:
        tuned = is_instruction_tuned(source, name) or (adapter is not None and takes_turns(adapter))
        stops = read_stops(source, model.config.vocab)
        save(LanguageModel(model, vocabulary, tuned, stops), target, format, card, quantize)
    after = saved_quantization(target)
    if check:
        wanted = {name: p.detach for name, p in model.named_parameters()}
        if after is not None:
            wanted = {tensor.name: tensor.make for tensor in quantised_tensors(model, after)}
        compare(target, wanted, model.config, lambda *at: progress("reading back", *at))
    folder = target if target.is_dir() else target.parent
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return Converted(
        source_format=detect(source),
        format=format,
        parameters=parameter_count(model.config),
        dtypes=_dtypes(model, after),
        files={file.relative_to(folder).as_posix(): file.stat().st_size for file in files},
        tokenizer=vocabulary is not None,
        checked=check,
        seconds=time.perf_counter() - began,
    )


def borrowed(
    path: Path,
    config: ModelConfig | str | dict[str, Any] | None = None,
    dtype: torch.dtype | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    adapter: str | PathLike[str] | None = None,
) -> Griffin:
    """A model whose parameters are the file's own bytes where those are mapped: only to be saved.

    dtype: None leaves every tensor in its own, so that a file with several keeps them. adapter: see
    `convert`.
    """
    settled, found = read_parameters(path, config)
    model = Griffin(settled, device="meta").requires_grad_(False)
    before = saved_quantization(path)
    if before is not None:
        before.prepare(model, path)
        if dtype is not None:
            before = replace(before, dtype=dtype)
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    added = None if adapter is None else read_adapter(adapter, settled, shapes)
    base = Fingerprint(settled.identity())
    for done, (name, tensor) in enumerate(found, 1):
        home, _, leaf = name.rpartition(".")
        kind = dtype or tensor.dtype
        if added is not None:
            base.add(name, tensor)
            tensor = added.change(name, tensor)
        owner = model.get_submodule(home)
        if isinstance(owner, QuantizedMatrix):
            owner.put({leaf: tensor})
        else:
            setattr(owner, leaf, nn.Parameter(tensor.to(kind), requires_grad=False))
        progress(done, len(shapes))
    if added is not None:
        added.check_base(base.digest())
    if before is not None:
        model.origin.set_model(before.source)
    return model


def _dtypes(model: Griffin, quantization: Quantization | None) -> tuple[str, ...]:
    """What the weights are stored in, in words."""
    kinds = {} if quantization is None else quantization.kinds
    plain = {p.dtype for name, p in model.named_parameters() if name not in kinds}
    words = {str(dtype).removeprefix("torch.") for dtype in plain} | set(kinds.values())
    return tuple(sorted(words))


def compare(
    path: Path,
    wanted: Mapping[str, Callable[[], Tensor]],
    config: ModelConfig,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Reads a checkpoint and holds every tensor against the wanted one, to the bit.

    wanted: what makes each, by our name, called in the model's order.
    Raises CheckpointCorrupt naming the first that differs.
    """
    settled, found = read_parameters(path)
    if settled.identity() != config.identity():
        raise CheckpointCorrupt(
            f"{path}: the config that was read back is not the one that was written; convert it "
            "again, and report this if it happens again"
        )
    done = 0
    for done, (name, tensor) in enumerate(found, 1):
        if not same_bits(tensor, wanted[name]()):
            raise CheckpointCorrupt(
                f"{path}: {name} was read back with other bits than were written; the disk or the "
                "memory may be failing: convert it again"
            )
        progress(done, len(wanted))
    if done != len(wanted):
        raise CheckpointCorrupt(f"{path}: {len(wanted) - done} parameters were not read back")


def formats_for(model: Griffin) -> list[str]:
    """The formats that can hold a model."""
    return [name for name in FORMATS if _obstacle(model, name) is None]


def find_tokenizer(source: Path, named: str | PathLike[str] | None = None) -> Tokenizer | None:
    """The vocabulary named, or the one beside the checkpoint, or None where there is none."""
    if named is not None:
        return load_tokenizer(Path(named))
    for home in folders_beside(source):
        if any((home / name).exists() for name in ("tokenizer.model", "tokenizer.json")):
            return load_tokenizer(home)
    return None


def _obstacle(model: Griffin, format: str) -> str | None:
    """Why a format cannot hold a model, or None where it can."""
    try:
        dialect = FORMATS[format].dialect_for(model.config)
        dialect.describe(model.config, model.embed.weight.dtype, None)
        names = [name for name, _ in build(model.config, device="meta").named_parameters()]
        expand(dialect.names, names, format)
    except CheckpointMismatch as error:
        return str(error)
    return None


def _refuse_unfit(model: Griffin, format: str) -> None:
    """Raises where the format cannot hold the model, with the formats that can."""
    reason = _obstacle(model, format)
    if reason is not None:
        can = ", ".join(formats_for(model))
        raise CheckpointMismatch(f"{reason} (formats that can hold this model: {can})")


def _refuse_in_use(source: Path, target: Path, overwrite: bool) -> None:
    if target.exists() and target.resolve() == source.resolve():
        raise CheckpointError(f"{target} is the checkpoint to convert; choose another place")
    used = target.exists() and (target.is_file() or any(target.iterdir()))
    if used and not overwrite:
        raise CheckpointError(
            f"{target} exists and is not empty; choose another place, or say --overwrite, which "
            "replaces a checkpoint there and keeps other files"
        )


def _card(source: Path) -> str | None:
    """The source's own card; None without one, and for one that says what it was converted from."""
    file = (source if source.is_dir() else source.parent) / "README.md"
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    return None if OURS in text else text
