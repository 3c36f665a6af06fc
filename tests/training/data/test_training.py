"""The trainer over packed text: it learns, and a resumed run is the same to the bit."""

import json
from pathlib import Path

import pytest
import torch

from griffin_lm.mixers import RGLRU, LocalAttention
from griffin_lm.models import ModelConfig
from griffin_lm.text import Tokenizer
from griffin_lm.training import pretraining
from griffin_lm.training.config import TrainConfig
from griffin_lm.training.data.feeds import PackedText
from griffin_lm.training.data.prepare import prepare
from griffin_lm.training.pretraining import open_run


@pytest.fixture
def config() -> TrainConfig:
    """Two layers of width 16, four rows of 32 tokens in two micro-batches."""
    model = ModelConfig(
        vocab=2048,
        width=16,
        mlp_width=16,
        layers=2,
        pattern=(RGLRU(width=16, heads=2), LocalAttention(heads=1, head_dim=16, window=24)),
    )
    return TrainConfig(
        model=model,
        feed=PackedText(bins=4),
        rows=2,
        accumulate=2,
        length=32,
        tokens=128 * 8,
        warmup_steps=2,
        compile=False,
        rate_seconds=0.0,
    )


@pytest.fixture
def data(tmp_path: Path, vocabulary: Tokenizer) -> Path:
    """Forty texts of 1 to 40 words, prepared."""
    rows = [{"text": " ".join(["the fox ran home"] * (1 + place % 10))} for place in range(40)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    prepare(tmp_path / "a.jsonl", vocabulary, tmp_path / "data")
    return tmp_path / "data"


def test_a_resumed_run_over_packed_text_is_the_same_to_the_bit(
    tmp_path: Path, config: TrainConfig, data: Path
) -> None:
    run = open_run(config, data, tmp_path / "one", "cpu")
    for _ in range(3):
        run.step()
    torch.save(run.to_dict(), tmp_path / "saved.pt")
    other = open_run(config, data, tmp_path / "other", "cpu")
    other.restore(torch.load(tmp_path / "saved.pt", weights_only=True))
    first = [run.step().loss for _ in range(3)]
    assert [other.step().loss for _ in range(3)] == first
    pairs = zip(run.model.parameters(), other.model.parameters(), strict=True)
    assert all(torch.equal(one, two) for one, two in pairs)
    assert run.feed.to_dict() == other.feed.to_dict()


def test_a_few_steps_over_packed_text_lower_the_loss(
    tmp_path: Path, config: TrainConfig, data: Path
) -> None:
    run = open_run(config, data, tmp_path / "run", "cpu")
    losses = [run.step().loss for _ in range(8)]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("has", [True, False])
def test_bf16_is_fp32_where_the_device_has_none_of_its_own(
    tmp_path: Path, config: TrainConfig, data: Path, monkeypatch: pytest.MonkeyPatch, has: bool
) -> None:
    monkeypatch.setattr(pretraining, "computes_in_bfloat16", lambda device: has)
    assert config.bf16
    assert open_run(config, data, tmp_path / "run", "cpu").config.bf16 is has
