"""Tiny models of each family on disk, a file of rows, and runs that take a moment."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import griffin_lm as griffin
from griffin_lm.inference import LanguageModel
from griffin_lm.mixers import RGLRU
from griffin_lm.models import Griffin
from griffin_lm.training.finetuning import lora
from griffin_lm.training.finetuning.config import FinetuneConfig
from griffin_lm.training.finetuning.run import Base, Prepared, open_base, prepare
from griffin_lm.training.finetuning.targets import Targets
from tests.inference.vocabulary import SENTENCES, vocabulary

FAMILIES = ("tiny-griffin", "tiny-llama", "tiny-gemma", "tiny-mamba")
ROWS: list[dict[str, Any]] = [
    {"prompt": SENTENCES[i % 6][: 20 + i], "completion": SENTENCES[(i + 1) % 6][: 10 + i % 7]}
    for i in range(12)
] + [
    {"messages": [{"role": "user", "content": s}, {"role": "assistant", "content": s[:9]}]}
    for s in SENTENCES
]


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints of ours by preset, with the small vocabulary."""
    home, made = tmp_path_factory.mktemp("bases"), {}
    for seed, name in enumerate((*FAMILIES, "tiny-gru"), 1):
        config = replace(griffin.PRESETS[name], vocab=vocabulary().vocab_size)
        if name == "tiny-griffin":  # as RecurrentGemma, so that transformers knows it
            recurrent, attention = RGLRU(width=48, heads=2), config.pattern[-1]
            config = replace(
                config, layers=3, scale_embeddings=True, pattern=(recurrent, recurrent, attention)
            )
        model = griffin.build(config, seed=seed)
        made[name] = home / name
        griffin.save(LanguageModel(model, vocabulary()), made[name])
    return made


@pytest.fixture(scope="session")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve prompts with completions, six conversations."""
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return path


@pytest.fixture
def small() -> FinetuneConfig:
    """Rows of 48 tokens, rank 3, every number of its own."""
    return FinetuneConfig(
        rank=3, alpha=5.0, rows=2, length=48, steps=4, warmup_steps=1, peak_rate=1e-2, bf16=False,
        log_every=1,
    )  # fmt: skip


@pytest.fixture
def begin(folders: dict[str, Path], rows: Path, tmp_path: Path) -> Callable[..., Prepared]:
    """A run before its first step: begin(config, family, adapter=..., out=..., quantize=...)."""

    def make(
        config: FinetuneConfig,
        family: str = "tiny-griffin",
        *,
        adapter: bool = True,
        out: Path | None = None,
        data: Path | None = None,
        folder: Path | None = None,
        **options: Any,
    ) -> Prepared:
        base = base_of(folder or folders[family], adapter=adapter, **options)
        return prepare(base, data or rows, out or tmp_path / "run", config, adapter=adapter)

    return make


def base_of(folder: Path, adapter: bool = True, **options: Any) -> Base:
    return open_base(str(folder), adapter=adapter, **({"dtype": "float32"} | options))


def adapted(
    folder: Path, config: FinetuneConfig, dtype: torch.dtype = torch.float32, **options: Any
) -> tuple[Griffin, Targets]:
    """A model with adapters that do something: B drawn like A."""
    model = base_of(folder, dtype=str(dtype), **options).lm.model
    torch.manual_seed(7)
    targets = lora.adapt(model.requires_grad_(False), config)
    with torch.no_grad():
        for _, b in lora.factors(dict(model.named_parameters()), targets).values():
            b.normal_(std=0.1)
    return model, targets
