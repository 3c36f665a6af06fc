"""The examples run, on a tiny model, and print what they say they do."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import griffin_lm as griffin
from griffin_lm.inference import LanguageModel
from tests.inference.vocabulary import SENTENCES, vocabulary

FOLDER = Path(__file__).parents[1] / "examples"
EXAMPLES = sorted(FOLDER.glob("*.py"))
LONGEST = 60  # lines
RAY = Path(__file__).with_name("test_ray_examples.py")  # slow: it tests some of them
LONGER = {"transformers_bugs.py": 190}  # a page's evidence (tests/test_from_transformers.py)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny random weights and a vocabulary."""
    config = replace(griffin.PRESETS["tiny-griffin"], vocab=vocabulary().vocab_size)
    folder = tmp_path_factory.mktemp("examples") / "tiny"
    griffin.save(LanguageModel(griffin.build(config, seed=2), vocabulary()), folder)
    return folder


@pytest.fixture
def example(tmp_path: Path):
    """Runs an example in a process of its own; returns what it printed."""

    def run(name: str, *arguments: str | Path) -> str:
        done = subprocess.run(
            [sys.executable, "-W", "error", FOLDER / name, *map(str, arguments)],
            cwd=tmp_path,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_generate_prints_greedy_sampled_and_batched_text(example, checkpoint: Path) -> None:
    printed = example("01_generate.py", checkpoint)
    assert re.search(r"greedy: .* \(24 tokens, ended by length\)", printed)
    assert printed.count("in a batch: ") == 2


def test_a_kept_state_goes_on_to_the_token(example, checkpoint: Path) -> None:
    printed = example("02_keep_a_state.py", checkpoint)
    assert "8 + 8 tokens = 16 tokens" in printed


def test_the_model_call_is_exact(example) -> None:
    printed = example("03_call_the_model.py")
    assert printed.count("apart") == 3
    assert "the state stands for 30 tokens" in printed
    assert "last logits (1, 96), 50 tokens read" in printed


def test_bits_per_byte_of_a_random_model_are_about_those_of_guessing(
    example, checkpoint: Path, tmp_path: Path
) -> None:
    text = tmp_path / "text.txt"
    text.write_text(" ".join(SENTENCES * 4))  # longer than a chunk
    printed = example("04_bits_per_byte.py", text, checkpoint)
    tokens, size = map(int, re.findall(r"(\d+) tokens, (\d+) bytes", printed)[0])
    nats, bits = map(float, re.findall(r"([\d.]+) (?:nats|bits)", printed))
    assert size == len(text.read_text()) and tokens > 512
    assert 0.5 < nats / 5.95 < 2  # ln 384
    assert bits == pytest.approx(nats * tokens / 0.6931 / size, rel=1e-2)


def test_training_learns_what_only_the_recurrence_can_carry(example) -> None:
    printed = example("05_train_from_scratch.py", 100)
    shares = [int(share) for share in re.findall(r"(\d+)% right", printed)]
    assert shares[0] < 50 and shares[-1] >= 95


def test_both_formats_hold_the_same_bits(example) -> None:
    assert example("06_convert.py").count("every weight the same") == 2


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_short_tested_and_says_how_to_run_it(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert len(lines) <= LONGER.get(path.name, LONGEST)
    assert f"python examples/{path.name}" in path.read_text()
    assert any(f'"{path.name}"' in tests.read_text() for tests in (Path(__file__), RAY))


def test_an_adapter_learns_its_rows_and_answers_when_loaded(example, checkpoint: Path) -> None:
    printed = example("07_finetune.py", checkpoint, 60)
    first, last = map(float, re.findall(r"loss ([\d.]+) at first, ([\d.]+) after", printed)[0])
    assert last < first / 2
    assert "«" in printed and printed.count(", right") >= 3
