"""From a model to a checkpoint, in any format: all of it appears, or none."""

from os import PathLike
from pathlib import Path

import torch
from torch import Tensor

from ..errors import CheckpointError
from ..models import Griffin
from ..shapes import JSON
from .card import model_card
from .detection import format_named
from .files import CONFIG, appearing, write_json
from .format import Target, Vocabulary
from .names import Rename, by_theirs, expand
from .source import Outgoing
from .writing import is_weights


def save_model(
    model: Griffin,
    folder: str | PathLike[str],
    format: str = "griffin",
    tokenizer: Vocabulary | None = None,
    card: str | None = None,
    max_shard_bytes: int = 5_000_000_000,
    about: JSON | None = None,
) -> None:
    """Writes a checkpoint's folder: config, weights, tokenizer files, README.md (the card).

    about: further keys for config.json, such as {"instruction_tuned": True}; every format has them.

    Everything is written aside first: the folder then holds the whole checkpoint, or what it held.
    Files of other names in an existing folder stay. Raises CheckpointMismatch for a model that the
    format cannot hold, CheckpointError where the disk refuses, ConfigError for an unknown format.
    """
    form, folder = format_named(format), Path(folder)
    parameters = dict(model.named_parameters())
    if any(parameter.is_meta for parameter in parameters.values()):
        raise CheckpointError("a model on the device 'meta' has no weights to save")
    dialect = form.dialect_for(model.config)
    files = dialect.describe(model.config, model.embed.weight.dtype, tokenizer)
    files[CONFIG] |= about or {}
    tensors = outgoing(expand(dialect.names, parameters, form.name), parameters)

    def obsolete(name: str, new: set[str]) -> bool:
        return name not in new and (is_weights(name) or name == "generation_config.json")

    with appearing(folder, obsolete) as aside:
        for name, value in files.items():
            write_json(aside / name, value)
        name = folder.resolve().name
        form.write(Target(aside, name, model.config, max_shard_bytes), tensors)
        if tokenizer is not None:
            tokenizer.save(aside)
        text = card if card is not None else model_card(name, model, form)
        (aside / "README.md").write_text(text, encoding="utf-8")


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
