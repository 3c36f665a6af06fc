"""What every dialect of config.json shares: reading settings by type, refusing what is unsaid."""

from collections.abc import Collection
from dataclasses import fields
from pathlib import Path
from typing import Any

from ...errors import CheckpointCorrupt, CheckpointError, CheckpointMismatch
from ...models import ModelConfig
from ...shapes import JSON
from ..format import Vocabulary

LARGEST = 1e30  # a number beyond it is no setting


class Settings:
    """config.json, read by name and type; null counts as left out."""

    def __init__(self, config: JSON, path: Path) -> None:
        self.config, self.path = config, path

    def refuse(self, name: str, want: str) -> CheckpointCorrupt:
        """The error for a setting that is not what it must be."""
        value = self.config.get(name)
        return CheckpointCorrupt(
            f"{self.path}: {name} must be {want}, not {value!r:.60}; correct it"
        )

    def whole(self, name: str, default: int) -> int:
        """A positive integer."""
        value = self.config.get(name)
        value = default if value is None else value
        if type(value) is not int or not 0 < value < 2**31:
            raise self.refuse(name, "a positive integer")
        return value

    def real(self, name: str, default: float) -> float:
        """A number of 0 or more."""
        value = self.config.get(name)
        value = default if value is None else value
        if type(value) not in (int, float) or not 0 <= value <= LARGEST:
            raise self.refuse(name, "a number of 0 or more")
        return float(value)

    def only(self, name: str, wanted: Any) -> None:
        """Refuses any value but the one that we compute with."""
        if self.config.get(name) not in (None, wanted):
            raise CheckpointError(
                f"{self.path}: {name} is {self.config[name]!r:.60}; only {wanted!r} is supported"
            )


def the_only(kind: Any, config: ModelConfig) -> Any:
    """The settings of all mixers of a kind, which the format keeps once; None without any."""
    found = [mixer for mixer in config.pattern if type(mixer) is kind]
    for setting in (field.name for field in fields(kind)):
        values = {getattr(mixer, setting) for mixer in found}
        if len(values) > 1 and setting not in kind.only_initial:
            raise cannot(f"has one {setting} for all {kind.kind} layers, and this model {values}")
    return found[0] if found else None


def refuse_unsaid(config: ModelConfig, said: Collection[str] = ()) -> None:
    """Refuses settings that the dialect has no word for, unless they have their default.

    Of the model and of its mixers, those that came after the first release (`later`); said: those
    that the dialect does have words for. Raises CheckpointMismatch.
    """
    for owner in (config, *config.pattern):
        for field in fields(owner):
            unsaid = field.name in owner.later and field.name not in said
            if unsaid and getattr(owner, field.name) != field.default:
                raise cannot(f"has no word for {field.name}={getattr(owner, field.name)!r}")


def cannot(why: str) -> CheckpointMismatch:
    """The error for a model that the format has no settings for."""
    return CheckpointMismatch(f'the format "huggingface" {why}; save it with format="griffin"')


def special_ids(vocabulary: Vocabulary | None) -> JSON:
    """Special ids as transformers names them; null for what is not known."""
    if vocabulary is None:
        return {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    stops = list(vocabulary.stop_ids)
    end = vocabulary.eos_id if len(stops) < 2 else stops
    return {
        "bos_token_id": vocabulary.bos_id,
        "eos_token_id": end,
        "pad_token_id": vocabulary.pad_id,
    }
