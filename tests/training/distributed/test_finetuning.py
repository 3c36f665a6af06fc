"""Two processes fine-tune as one does, write what one writes, and go on to the bit."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from griffin_lm.inference import load
from griffin_lm.training.batch import World
from tests.training.distributed import tuning
from tests.training.distributed.conftest import results

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def furthest(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


@pytest.mark.parametrize("way", tuning.WAYS)
def test_two_processes_learn_what_one_learns(two: Path, data: Path, tmp_path: Path, way: str):
    """Weights less exactly: AdamW makes a gradient that is nearly 0 as large as any other."""
    many = results(two, "finetuned")[way]
    run = tuning.begun(data.parent / "tuning", tmp_path, World(), **tuning.WAYS[way])
    before = {name: one.clone() for name, one in run.tuner.learned().items()}
    alone = tuning.tuned(run)
    assert many["loss"] == pytest.approx(alone["loss"], rel=1e-6)
    assert many["norm"] == pytest.approx(alone["norm"], rel=1e-5)
    assert furthest(alone["moments"], many["moments"]) < 1e-6
    assert furthest(alone["learned"], many["learned"]) < 5e-4
    assert furthest(before, many["learned"]) > 1e-2


@torch.no_grad()
def test_what_they_wrote_is_a_model_and_an_adapter_that_load(two: Path, data: Path):
    found: dict[str, Any] = results(two, "finetuned")
    tokens = torch.arange(3, 20)[None]
    base = data.parent / "tuning" / "base"
    kinds: dict[str, Any] = {"device": "cpu", "dtype": "float32"}
    plain = load(str(base), **kinds).model(tokens)[0]
    (model,) = found["all weights"]["wrote"]
    whole = load(str(two / "finetuned" / model), **kinds).model
    assert furthest(whole.state_dict(), found["all weights"]["learned"]) == 0.0
    adapter, merged = found["LoRA"]["wrote"]
    beside = load(str(base), adapter=two / "finetuned" / adapter, **kinds).model(tokens)[0]
    inside = load(str(two / "finetuned" / merged), **kinds).model(tokens)[0]
    torch.testing.assert_close(beside, inside, rtol=0, atol=1e-5)
    assert float((beside - plain).abs().max()) > 1e-3


def test_a_run_with_dropout_is_two_halves_to_the_bit(two: Path):
    found = results(two, "finetuned")
    one, other = found["at once"], found["in two"]
    assert one["loss"][tuning.STEPS // 2 :] == other["loss"]
    assert furthest(one["learned"], other["learned"]) == 0.0
    assert furthest(one["moments"], other["moments"]) == 0.0
