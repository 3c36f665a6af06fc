"""The recipes that come along: each trains, on as little as shows that it learns."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from griffin_lm.inference import load
from griffin_lm.training.config import load_recipe, with_settings
from griffin_lm.training.data.prepare import prepare
from griffin_lm.training.export import export
from griffin_lm.training.pretraining import open_run

RECIPES = Path(__file__).parents[2] / "recipes"
SHORT = ("compile=false", "rate_seconds=0", "warmup_steps=2", "log_every=2")


@pytest.fixture(scope="session")
def shards(books: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The little books as token files."""
    out = tmp_path_factory.mktemp("shards") / "tokens"
    prepare(books, load("fledgling", device="cpu").tokenizer, out)
    return out


@pytest.mark.slow
def test_prose_learns(shards: Path, tmp_path: Path):
    config = with_settings(
        load_recipe(RECIPES / "prose.py"),
        [*SHORT, "steps=12", "rows=2", "length=64", "accumulate=2"],
    )
    run = open_run(config, shards, tmp_path, "cpu")
    losses = [run.step().loss for _ in range(12)]
    assert losses[0] == pytest.approx(7.6, abs=1.0)  # ln 2048
    assert losses[-1] < losses[0] - 2


def test_fledgling_learns(books: Path, out: Path):
    config = with_settings(
        load_recipe(RECIPES / "fledgling.py"),
        [*SHORT, "held_out=kept", "steps=12", "rows=4", "length=64"],
    )
    run = open_run(config, books, out, "cpu")
    losses = [run.step().loss for _ in range(12)]
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.slow
def test_a_run_that_is_told_to_end_goes_on_where_it_was(shards: Path, tmp_path: Path):
    """SIGTERM from outside, in a process of its own: 143, and the rest after --resume auto."""
    settings = [*SHORT, "steps=2000", "rows=1", "length=32", "accumulate=1", "log_every=1"]
    command = [
        *(sys.executable, "-m", "griffin_lm.cli.main", "pretrain", str(RECIPES / "prose.py")),
        *("--data", str(shards), "--out", str(tmp_path), "--device", "cpu"),
    ]
    sets = [word for setting in settings for word in ("--set", setting)]
    first = subprocess.Popen([*command, *sets], stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None and "step 1 " in first.stdout.readline()
    time.sleep(1)
    os.kill(first.pid, signal.SIGTERM)
    first.communicate(timeout=120)
    assert first.returncode == 143
    steps = len((tmp_path / "log.csv").read_text().splitlines()) - 1
    assert steps >= 1
    sets += ["--set", f"steps={steps + 2}"]
    again = subprocess.run(
        [*command, *sets, "--resume", "auto"], capture_output=True, text=True, timeout=120
    )
    assert again.returncode == 0, again.stderr
    assert f"going on from step {steps}" in again.stdout and f"step {steps + 2} " in again.stdout


def test_a_run_on_token_files_becomes_a_checkpoint_that_writes(shards: Path, tmp_path: Path):
    config = with_settings(
        load_recipe(RECIPES / "prose.py"),
        [*SHORT, "steps=1", "rows=1", "length=32", "accumulate=1"],
    )
    assert open_run(config, shards, tmp_path / "run", "cpu").run(False) == 0
    facts = export(tmp_path / "run", tmp_path / "model")
    assert facts["steps"] == 1 and "held_out" not in facts
    lm = load(tmp_path / "model", device="cpu")
    assert not lm.instruction_tuned and len(lm.generate("The ", max_new_tokens=3).tokens) == 3
