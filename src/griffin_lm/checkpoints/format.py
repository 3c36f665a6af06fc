"""What a format of checkpoints consists of. Adding one is its file, and its row in FORMATS."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from ..models import ModelConfig
from ..shapes import JSON
from .names import Rename


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


@dataclass(frozen=True)
class Format:
    """A table of names, and the two directions of its config.

    matches(config.json) -> whether it is of this format
    read_config(config.json, its path) -> ModelConfig; raises CheckpointError subclasses
    describe(config, dtype of the weights, vocabulary or None) -> {file name: JSON to write}
    duplicates: {their name: their name} of tensors that may stand twice, if they are equal
    checked: every tensor has a checksum in the files
    """

    name: str
    names: tuple[Rename, ...]
    matches: Callable[[JSON], bool]
    read_config: Callable[[JSON, Path], ModelConfig]
    describe: Callable[[ModelConfig, torch.dtype, Vocabulary | None], dict[str, JSON]]
    duplicates: dict[str, str] = field(default_factory=dict[str, str])
    checked: bool = False
