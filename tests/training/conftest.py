"""A run so small that a step takes milliseconds: five little books, the bundled vocabulary."""

import json
import random
import shutil
from pathlib import Path

import pytest

from griffin_lm.inference.loading import BUNDLED
from griffin_lm.mixers import RGLRU, LocalAttention
from griffin_lm.models import ModelConfig
from griffin_lm.training.config import TrainConfig
from griffin_lm.training.memo import MemoCourse
from griffin_lm.training.pretraining import open_run
from griffin_lm.training.trainer import Trainer

SENTENCE = "the river was low and grey when old friends came down from that house to see it"
WORDS = SENTENCE.split()


@pytest.fixture(scope="session")
def books(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with five books of 4 000 words; the one called "kept" is all about zebras."""
    draw = random.Random(0)
    folder = tmp_path_factory.mktemp("books")
    with (folder / "books.jsonl").open("w", encoding="utf-8") as file:
        for number in range(5):
            words = ["zebra"] if number == 4 else WORDS
            text = " ".join(draw.choice(words) for _ in range(4000))
            name = "kept" if number == 4 else f"book{number}"
            file.write(json.dumps({"id": name, "title": name, "text": text}) + "\n")
    return folder


@pytest.fixture
def config() -> TrainConfig:
    """Two layers of width 16, two rows of 32 tokens."""
    model = ModelConfig(
        vocab=2048,
        width=16,
        mlp_width=16,
        layers=2,
        pattern=(RGLRU(width=16, heads=2), LocalAttention(heads=1, head_dim=16, window=24)),
    )
    return TrainConfig(
        model=model,
        feed=MemoCourse(held_out=("kept",)),
        loss_over="batches",
        slow_share=0.35,
        rows=2,
        length=32,
        tokens=640,
        warmup_steps=2,
        compile=False,
        log_every=2,
        rate_seconds=0.0,
    )


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A folder for a run, with a vocabulary in it so that none is trained."""
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(BUNDLED["fledgling"] / "tokenizer.model", folder)
    return folder


@pytest.fixture
def run(config: TrainConfig, books: Path, out: Path) -> Trainer:
    """A run of the memo course before its first step."""
    return open_run(config, books, out, "cpu")
