"""Meta's own layout of Llama 3: `consolidated.*.pth` and `params.json` in a folder. Only read."""

from pathlib import Path
from typing import NoReturn

import torch

from ...errors import CheckpointMismatch
from ...models import ModelConfig
from ...shapes import JSON
from ..format import Dialect, Format, Place, Target, Vocabulary
from ..names import Rename
from ..source import Outgoing, Source
from .params import infer
from .shards import PATTERN, MetaWeights

_MINE = "layers.{i}."
_PARTS = (
    ("mixer_norm.scale", "attention_norm.weight"),
    ("mlp_norm.scale", "ffn_norm.weight"),
    ("mixer.q.weight", "attention.wq.weight"),
    ("mixer.k.weight", "attention.wk.weight"),
    ("mixer.v.weight", "attention.wv.weight"),
    ("mixer.out.weight", "attention.wo.weight"),
    ("mlp.gate.weight", "feed_forward.w1.weight"),
    ("mlp.down.weight", "feed_forward.w2.weight"),
    ("mlp.up.weight", "feed_forward.w3.weight"),
)
NAMES = (
    Rename("embed.weight", "tok_embeddings.weight"),
    Rename("head.weight", "output.weight"),
    Rename("final_norm.scale", "norm.weight"),
    *(Rename(_MINE + ours, _MINE + theirs) for ours, theirs in _PARTS),
)


def _matches(place: Place) -> bool:
    if place.config is not None:
        return False
    if place.path.is_file():
        return place.path.match(PATTERN)
    return any(place.folder.glob(PATTERN))


def _open(place: Place, _: ModelConfig | None) -> Source:
    return MetaWeights(place.folder)


def _refuse() -> NoReturn:
    raise CheckpointMismatch(
        'Meta\'s layout is only read; save the model with format="huggingface" or "griffin"'
    )


def _read_config(config: JSON, path: Path) -> ModelConfig:
    _refuse()


def _describe(
    config: ModelConfig, dtype: torch.dtype, vocabulary: Vocabulary | None
) -> dict[str, JSON]:
    _refuse()


def _write(target: Target, tensors: list[Outgoing]) -> None:
    _refuse()


IN_META = Dialect(
    "meta-llama",
    NAMES,
    lambda _: False,
    _read_config,
    _describe,
    duplicates={"output.weight": "tok_embeddings.weight"},
)
META = Format("meta", (IN_META,), _matches, lambda _: IN_META, _open, _write, infer)
