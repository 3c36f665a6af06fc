"""Hugging Face's folders: one format, and a row in DIALECTS for every model type in it.

A model type is one file, with its table of names and its config.json in both directions. Loading
picks the row by `model_type`, saving by the model's own config.
"""

from ...errors import CheckpointError
from ...models import ModelConfig
from ...shapes import JSON
from ..files import CONFIG
from ..format import Dialect, Format, Place, Target
from ..source import Outgoing, Source
from ..tensors import Weights
from ..writing import write_weights
from .gemma import GEMMA
from .llama import LLAMA
from .mamba import MAMBA
from .recurrent_gemma import RECURRENT_GEMMA

_ROWS = (RECURRENT_GEMMA, GEMMA, LLAMA, MAMBA)
DIALECTS: dict[str, Dialect] = {row.model_type: row for row in _ROWS}


def matches(place: Place) -> bool:
    """A folder whose config.json names a model type that we know."""
    return place.config is not None and _row(place.config) is not None and place.path.is_dir()


def dialect(config: JSON | None) -> Dialect:
    """The row of a config.json that `matches`."""
    found = None if config is None else _row(config)
    if found is None:
        raise CheckpointError(f"{CONFIG} names no model type of: {', '.join(DIALECTS)}")
    return found


def _row(config: JSON) -> Dialect | None:
    kind = config.get("model_type")
    return DIALECTS.get(kind) if isinstance(kind, str) else None


def _open(place: Place, _: ModelConfig | None) -> Source:
    return Weights(place.folder)


def _write(target: Target, tensors: list[Outgoing]) -> None:
    write_weights(target.folder, tensors, lambda _: {"format": "pt"}, target.max_shard_bytes)


HUGGINGFACE = Format("huggingface", tuple(DIALECTS.values()), matches, dialect, _open, _write)
