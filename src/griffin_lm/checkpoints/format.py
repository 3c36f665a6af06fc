"""What a format of checkpoints consists of. Adding one is its folder, and its row in FORMATS."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch

from ..errors import CheckpointMismatch
from ..models import ModelConfig
from ..shapes import JSON
from .files import CONFIG
from .names import Rename
from .source import Outgoing, Source

Settings = ModelConfig | str | JSON  # a config, a preset's name, or single settings


@runtime_checkable
class Vocabulary(Protocol):
    """What saving asks of a tokenizer (griffin_lm.text.Tokenizer has it)."""

    @property
    def bos_id(self) -> int | None:
        """The id that begins a text."""
        ...

    @property
    def eos_id(self) -> int | None:
        """The id that ends a text."""
        ...

    @property
    def pad_id(self) -> int | None:
        """The id that fills up batches."""
        ...

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Every id at which generation stops."""
        ...

    def save(self, folder: Path, /) -> Any:
        """Writes its files."""
        ...


class Place(NamedTuple):
    """What a user points at: `path`, a folder or a file; `folder` holds what lies beside.

    config: its config.json, or None without one.
    """

    path: Path
    folder: Path
    config: JSON | None

    @property
    def file(self) -> Path:
        """Where config.json is, or would be."""
        return self.folder / CONFIG


class Target(NamedTuple):
    """What a format is told about the files to write: the names are its own affair.

    folder: the one that is filled, aside. name: that of the checkpoint, without a suffix.
    about: what the checksum of the config covers besides, such as how weights were quantised.
    """

    folder: Path
    name: str
    config: ModelConfig
    max_shard_bytes: int
    about: JSON | None = None


@dataclass(frozen=True)
class Dialect:
    """How one kind of model is said: its tensors' names, and its settings, in both directions.

    model_type: the word for it in config.json
    names: a table of parameters; a row that the model has no parameter for is not used
    speaks(config) -> whether models of this config are written in this dialect
    read_config(config.json, its path) -> ModelConfig; raises CheckpointError subclasses
    describe(config, dtype of the weights, vocabulary or None) -> {file name: JSON to write};
        raises CheckpointMismatch for a model that it has no settings for
    duplicates: {their name: their name} of tensors that may stand twice, if they are equal
    """

    model_type: str
    names: tuple[Rename, ...]
    speaks: Callable[[ModelConfig], bool]
    read_config: Callable[[JSON, Path], ModelConfig]
    describe: Callable[[ModelConfig, torch.dtype, Vocabulary | None], dict[str, JSON]]
    duplicates: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class Format:
    """A layout of files, and the dialects that are written in it.

    matches(place) -> whether it is of this format, by names of files and config.json alone
    dialect(config.json or None) -> the one it is in
    open(place, config) -> its tensors; config: what config.json says, None where it is overruled
    write(target, tensors) -> writes the weights
    infer(source, given) -> the config of a checkpoint that carries none, from its shapes
    weights(name of the checkpoint) -> the file or folder of the weights, for config.json to name
    """

    name: str
    dialects: tuple[Dialect, ...]
    matches: Callable[[Place], bool]
    dialect: Callable[[JSON | None], Dialect]
    open: Callable[[Place, ModelConfig | None], Source]
    write: Callable[[Target, list[Outgoing]], None]
    infer: Callable[[Source, Settings | None], ModelConfig] | None = None
    weights: Callable[[str], str] | None = None

    def carries(self, place: Place) -> bool:
        """Whether config.json has the settings: always where they can't be had otherwise."""
        return self.infer is None or (place.config or {}).get("format") == self.name

    def dialect_for(self, config: ModelConfig) -> Dialect:
        """The dialect that models of this config are saved in.

        Raises CheckpointMismatch naming the kinds of models that the format has words for.
        """
        for dialect in self.dialects:
            if dialect.speaks(config):
                return dialect
        kinds = sorted({mixer.kind for mixer in config.pattern})
        raise CheckpointMismatch(
            f"the format {self.name!r} has no words for a model of {', '.join(kinds)} with the "
            f"mlp {config.mlp!r}; it has them for: "
            f"{', '.join(dialect.model_type for dialect in self.dialects)}; "
            'save it with format="griffin"'
        )
