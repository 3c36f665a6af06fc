"""`griffin pretrain` and `griffin evaluate` from the shell's side."""

import json
import shutil
from pathlib import Path

import pytest

from griffin_lm.inference.loading import BUNDLED

RECIPE = """
from griffin_lm.mixers import RGLRU
from griffin_lm.models import ModelConfig
from griffin_lm.training.config import TrainConfig
from griffin_lm.training.memo import MemoCourse

def recipe():
    model = ModelConfig(
        vocab=2048, width=16, mlp_width=16, layers=1, pattern=(RGLRU(width=16, heads=2),)
    )
    return TrainConfig(
        model=model, feed=MemoCourse(), loss_over="batches", rows=2, length=16, tokens=96,
        compile=False, log_every=1, rate_seconds=0.0,
    )
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe file, books beside it in `data`, and a vocabulary in `out`."""
    (tmp_path / "data").mkdir()
    row = json.dumps({"id": "a", "text": "It was late in the evening. " * 300})
    (tmp_path / "data" / "books.jsonl").write_text(row + "\n", encoding="utf-8")
    (tmp_path / "out").mkdir()
    shutil.copy(BUNDLED["fledgling"] / "tokenizer.model", tmp_path / "out")
    path = tmp_path / "tiny.py"
    path.write_text(RECIPE, encoding="utf-8")
    return path


def test_pretrain_trains_and_goes_on(run, recipe: Path) -> None:
    base = recipe.parent
    options = ("--data", base / "data", "--out", base / "out")
    first = run("pretrain", recipe, *options)
    assert first.code == 0 and "step 3 | 96 of 96 tokens | loss" in first.out
    again = run("pretrain", recipe, *options)
    assert again.code == 1 and "--resume auto" in again.err
    on = run("pretrain", recipe, *options, "--resume", "auto", "--set", "tokens=160")
    assert on.code == 0 and "going on from step 3" in on.out and "step 5 | 160 of 160" in on.out


def test_pretrain_names_a_setting_that_it_does_not_have(run, recipe: Path) -> None:
    base = recipe.parent
    result = run("pretrain", recipe, "--data", base, "--out", base / "out", "--set", "colour=red")
    assert result.code == 1 and "colour" in result.err and "peak_rate" in result.err


def test_pretrain_needs_books(run, recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    out = recipe.parent / "out"
    result = run("pretrain", recipe, "--data", tmp_path / "nothing", "--out", out)
    assert result.code == 1 and "nothing" in result.err and ".jsonl" in result.err


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """3000 characters of the bundled book."""
    book = (BUNDLED["fledgling"] / "book.txt").read_text(encoding="utf-8")
    (tmp_path / "a.txt").write_text(book[:3000], encoding="utf-8")
    return tmp_path / "a.txt"


def test_evaluate_measures_a_text_and_recall(run, tmp_path: Path, text: Path) -> None:
    options = ("--text", text, "--recall", "--distances", "16,64", "--rows", "2")
    result = run("evaluate", "fledgling", *options, "--samples", "1", "--json", tmp_path / "j")
    assert result.code == 0, result.err
    figures = json.loads((tmp_path / "j").read_text(encoding="utf-8"))
    loss = figures["loss"]["carried"]
    assert loss["bytes"] == text.stat().st_size and figures["loss"]["state_bytes"] > 1000
    assert f"{loss['bits_per_byte']:.4f} bits per byte" in result.out
    assert len(figures["recall"]) == 12 and len(figures["needle"]) == 2
    assert "| 64 | 2 |" in result.out and len(figures["samples"]) == 1


def test_evaluate_reads_pieces_side_by_side_or_only_the_beginning(
    run, tmp_path: Path, text: Path
) -> None:
    pieces = ("--text", text, "--segments", 2, "--segment", 64, "--forget")
    result = run("evaluate", "fledgling", *pieces, "--json", tmp_path / "j")
    loss = json.loads((tmp_path / "j").read_text(encoding="utf-8"))["loss"]
    assert result.code == 0 and (loss["segments"], loss["segment_tokens"]) == (2, 64)
    assert loss["carried"]["bits_per_byte"] < loss["h_zeroed_every_token"]["bits_per_byte"]
    result = run("evaluate", "fledgling", "--text", text, "--tokens", 100, "--json", tmp_path / "j")
    loss = json.loads((tmp_path / "j").read_text(encoding="utf-8"))["loss"]
    assert result.code == 0 and loss["carried"]["tokens"] == 100 and "(100 tokens)" in result.out


def test_evaluate_without_anything_to_measure_is_wrong_usage(run) -> None:
    assert run("evaluate", "fledgling").code == 2
    assert run("evaluate", "fledgling", "--recall", "--distances", "far").code == 2
    assert run("evaluate", "fledgling", "--recall", "--text", "-").code == 2
