"""From a model to a checkpoint, in any format: all of it appears, or none."""

from collections.abc import Iterator
from functools import partial
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor

from ..errors import CheckpointError, CheckpointMismatch, ConfigError
from ..layers.quantized import KINDS, has_matrix, matrices, stored_tensors
from ..models import Griffin
from ..ops.quantized_linear import (
    Int4Weight,
    Int8Weight,
    packed_layout,
    quantize_int4,
    quantize_int8,
)
from ..shapes import JSON
from .card import model_card
from .detection import FORMATS, format_named
from .files import CONFIG, appearing, read_json, write_json
from .format import Dialect, Target, Vocabulary
from .names import Rename, by_theirs, expand
from .native import NATIVE, VERSION
from .quantization import KEY, Quantization
from .source import Outgoing
from .writing import is_weights


def save_model(
    model: Griffin,
    path: str | PathLike[str],
    format: str = "griffin",
    tokenizer: Vocabulary | None = None,
    card: str | None = None,
    max_shard_bytes: int = 5_000_000_000,
    about: JSON | None = None,
    quantize: str | None = None,
) -> None:
    """Writes a checkpoint: config, weights, tokenizer files, README.md (the card), in a folder.

    path: the folder; for "deepmind-torch" also a file that ends in .pt, beside which the others go.
    about: further keys for config.json, such as {"instruction_tuned": True}; every format has them.
    quantize: "int8" or "int4" rounds the matrices one after another as they are written. Quantised
    models, whether rounded before or now, are held by the format "griffin" only.

    Everything is written aside first: the folder then holds the whole checkpoint, or what it held.
    Files of other names in an existing folder stay. Raises CheckpointMismatch for a model that the
    format cannot hold, CheckpointError where the disk refuses or other files would be replaced,
    ConfigError for an unknown format.
    """
    form, path = format_named(format), Path(path)
    if any(parameter.is_meta for parameter in model.parameters()):
        raise CheckpointError("a model on the device 'meta' has no weights to save")
    dialect = form.dialect_for(model.config)
    dtype = model.embed.weight.dtype
    files = dialect.describe(model.config, dtype, tokenizer)
    quantization = _quantization(model, quantize, dtype)
    if quantization is not None:
        if form is not NATIVE:
            kinds = " and ".join(sorted(set(quantization.kinds.values())))
            raise CheckpointMismatch(
                f"weights in {kinds} can't be saved as {form.name!r}, whose programs do not know "
                'them: save with format="griffin", or convert the checkpoint they were rounded from'
            )
        files[CONFIG] |= {"version": VERSION, KEY: quantization.to_dict()}
    single = form.weights is not None and "." in path.name and form.weights(path.stem) == path.name
    folder, name = (path.parent, path.stem) if single else (path, path.resolve().name)
    vital = (CONFIG,)
    if form.weights is not None:
        files[CONFIG] |= {"weights": form.weights(name)}
        vital = (form.weights(name), CONFIG)
    files[CONFIG] |= about or {}
    tensors = (
        _outgoing(model, dialect, form.name)
        if quantization is None
        else list(quantised_tensors(model, quantization))
    )
    before = _before(folder)

    def obsolete(name: str, new: set[str]) -> bool:
        theirs = not single and (is_weights(name) or name == "generation_config.json")
        return name not in new and (theirs or name == before.get("weights"))

    with appearing(folder, obsolete, vital) as aside:
        for file, value in files.items():
            write_json(aside / file, value)
        about = None if quantization is None else quantization.to_dict()
        form.write(Target(aside, name, model.config, max_shard_bytes, about), tensors)
        if tokenizer is not None:
            tokenizer.save(aside)
        text = card if card is not None else model_card(name, model, form, quantization)
        (aside / "README.md").write_text(text, encoding="utf-8")
        if single and before.get("format") != form.name:
            _refuse_to_replace(aside, folder, path)


def _before(folder: Path) -> JSON:
    """The config.json of ours that the folder has now; {} where it has none."""
    try:
        config = read_json(folder / CONFIG)
    except CheckpointError:
        return {}
    return config if config.get("format") in FORMATS else {}


def _refuse_to_replace(aside: Path, folder: Path, path: Path) -> None:
    """A file is saved among a user's own, such as a README.md that is not ours to replace."""
    own = [new.name for new in aside.iterdir() if (folder / new.name).exists()]
    if own := sorted(name for name in own if name != path.name):
        raise CheckpointError(
            f"saving {path} would replace {', '.join(own)} beside it; save to a folder of its own"
        )


def _quantization(model: Griffin, quantize: str | None, dtype: torch.dtype) -> Quantization | None:
    """How the file's matrices will be quantised; None where none is."""
    here = matrices(model)
    if any(matrix.added is not None for matrix in here.values()):
        raise CheckpointError(
            "this model has an adapter beside its quantised weights, and a checkpoint has no place "
            "for one: keep the two apart, and load them with adapter="
        )
    kinds = {name: matrix.kind for name, matrix in here.items()}
    if quantize is not None:
        if quantize not in KINDS:
            raise ConfigError(f"quantize={quantize!r} is none of: {', '.join(KINDS)}")
        if others := sorted(set(kinds.values()) - {quantize}):
            raise ConfigError(
                f"this model is in {' and '.join(others)} already, which is not rounded again to "
                f"{quantize}: start from the checkpoint that it was made of"
            )
        plain = (name for name, module in model.named_modules() if has_matrix(module))
        kinds |= {f"{name}.weight": quantize for name in plain}
    return Quantization(kinds, model.origin.model(), dtype) if kinds else None


def quantised_tensors(model: Griffin, quantization: Quantization) -> Iterator[Outgoing]:
    """What a checkpoint of ours holds, in the model's order; matrices are rounded as they come.

    The tensors of a matrix come one after another, and it is rounded once for all of them: what is
    held is one matrix.
    """
    held: dict[str, Int8Weight | Int4Weight] = {}

    def rounded(name: str, weight: Tensor, kind: str, part: str) -> Tensor:
        if name not in held:
            held.clear()
            held[name] = (quantize_int8 if kind == "int8" else quantize_int4)(weight)
        return getattr(held[name], part)

    for name, tensor in stored_tensors(model).items():
        kind = quantization.kinds.get(name)
        if kind is None:
            packed = name.rpartition(".")[0] in quantization.kinds
            yield Outgoing(name, tuple(tensor.shape), tensor.dtype, lambda t=tensor: t, packed)
            continue
        rows, columns = tensor.shape
        for part, (shape, dtype) in packed_layout(kind, rows, columns).items():
            make = partial(rounded, name, tensor.detach(), kind, part)
            yield Outgoing(f"{name}.{part}", shape, dtype, make, True)


def _outgoing(model: Griffin, dialect: Dialect, form: str) -> list[Outgoing]:
    parameters = dict(model.named_parameters())
    return outgoing(expand(dialect.names, parameters, form), parameters)


def outgoing(plan: list[Rename], parameters: dict[str, torch.nn.Parameter]) -> list[Outgoing]:
    """Their tensors, each made of our parameters when it is asked for."""
    made: list[Outgoing] = []
    for name, rows in by_theirs(plan).items():
        ours = [parameters[row.ours] for row in rows]

        def make(rows: list[Rename] = rows, ours: list[torch.nn.Parameter] = ours) -> Tensor:
            parts = [row.save(own.detach()) for row, own in zip(rows, ours, strict=True)]
            return parts[0] if rows[0].part is None else torch.stack(parts)

        shape = rows[0].their_shape(tuple(ours[0].shape))
        made.append(Outgoing(name, shape, ours[0].dtype, make))
    return made
