"""From a model to a checkpoint, in any format: all of it appears, or none."""

from os import PathLike
from pathlib import Path

import torch
from torch import Tensor

from ..errors import CheckpointError
from ..layers.quantized import QuantizedMatrix
from ..models import Griffin
from ..shapes import JSON
from .card import model_card
from .detection import FORMATS, format_named
from .files import CONFIG, appearing, read_json, write_json
from .format import Target, Vocabulary
from .names import Rename, by_theirs, expand
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
) -> None:
    """Writes a checkpoint: config, weights, tokenizer files, README.md (the card), in a folder.

    path: the folder; for "deepmind-torch" also a file that ends in .pt, beside which the others go.
    about: further keys for config.json, such as {"instruction_tuned": True}; every format has them.

    Everything is written aside first: the folder then holds the whole checkpoint, or what it held.
    Files of other names in an existing folder stay. Raises CheckpointMismatch for a model that the
    format cannot hold, CheckpointError where the disk refuses or other files would be replaced,
    ConfigError for an unknown format.
    """
    form, path = format_named(format), Path(path)
    if any(isinstance(module, QuantizedMatrix) for module in model.modules()):
        raise CheckpointError(
            "a quantised model is not saved: its weights were rounded as they were loaded; save "
            "the model that was loaded without quantize=, and quantise it at every load"
        )
    parameters = dict(model.named_parameters())
    if any(parameter.is_meta for parameter in parameters.values()):
        raise CheckpointError("a model on the device 'meta' has no weights to save")
    dialect = form.dialect_for(model.config)
    files = dialect.describe(model.config, model.embed.weight.dtype, tokenizer)
    single = form.weights is not None and "." in path.name and form.weights(path.stem) == path.name
    folder, name = (path.parent, path.stem) if single else (path, path.resolve().name)
    vital = (CONFIG,)
    if form.weights is not None:
        files[CONFIG] |= {"weights": form.weights(name)}
        vital = (form.weights(name), CONFIG)
    files[CONFIG] |= about or {}
    tensors = outgoing(expand(dialect.names, parameters, form.name), parameters)
    before = _before(folder)

    def obsolete(name: str, new: set[str]) -> bool:
        theirs = not single and (is_weights(name) or name == "generation_config.json")
        return name not in new and (theirs or name == before.get("weights"))

    with appearing(folder, obsolete, vital) as aside:
        for file, value in files.items():
            write_json(aside / file, value)
        form.write(Target(aside, name, model.config, max_shard_bytes), tensors)
        if tokenizer is not None:
            tokenizer.save(aside)
        text = card if card is not None else model_card(name, model, form)
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
