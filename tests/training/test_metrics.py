"""The figures of a run: rows, the line, loggers that fail, FLOPs, the matrix rate."""

import csv
import importlib.util
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from griffin_lm.models import PRESETS, build
from griffin_lm.training.batch import World
from griffin_lm.training.config import TrainConfig
from griffin_lm.training.metrics import Metrics, StepFigures
from griffin_lm.training.speed import matmul_parameters, matrix_rate


class Silent:
    """A feed with figures of its own, which are never asked for anything else."""

    def take(self, share: float) -> Any:
        return None

    def observe(self, batch: Any, loss: Any, right: Any) -> None:
        return None

    def to_dict(self) -> dict[str, Any]:
        return {}

    def restore(self, saved: dict[str, Any]) -> None:
        pass

    def figures(self) -> dict[str, float | int]:
        return {"answers": 0.5}


def settings(**changes: Any) -> TrainConfig:
    return TrainConfig(**({"tokens": 1000, "log_every": 2, "rate_seconds": 0.0} | changes))


def some_steps(out: Path, first: int, last: int, rank: int = 0, **changes: Any) -> Metrics:
    """Steps of 10 tokens whose loss is the step's number."""
    metrics = Metrics(settings(**changes), build("tiny-hawk"), out, World(rank, 2), first - 1)
    with metrics:
        for step in range(first, last + 1):
            row = StepFigures(step, 10 * step, 0.5 * step, float(step), 1.0, 1e-3, 10, 0.5)
            metrics.add(row, step / 100, Silent())
    return metrics


def rows(out: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((out / "log.csv").read_text().splitlines()))


def test_every_so_many_steps_there_is_a_row_of_means_with_the_feeds_own(tmp_path: Path):
    some_steps(tmp_path, 1, 5)
    found = rows(tmp_path)
    assert [(r["step"], r["loss"], r["tokens"]) for r in found] == [
        ("2", "1.5", "20"),
        ("4", "3.5", "40"),
    ]
    assert all(r["answers"] == "0.5" and r["rate"] == "0.001" for r in found)


def test_going_on_takes_back_the_rows_of_steps_that_were_lost(tmp_path: Path):
    some_steps(tmp_path, 1, 8)
    some_steps(tmp_path, 5, 6)  # resumed from step 4
    assert [r["step"] for r in rows(tmp_path)] == ["2", "4", "6"]


def test_the_line_tells_loss_speed_share_of_the_matrix_rate_and_time_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    some_steps(tmp_path, 1, 2, rate_seconds=0.01)
    line = capsys.readouterr().out.strip()
    wanted = (
        r"step 2 \| 20 of 1,000 tokens \| loss 1\.500 \| [\d,]+ tokens/s, "
        r"[\d.]+ of the matrix rate \| 49 s left"
    )
    assert re.fullmatch(wanted, line)
    assert 0 < float(rows(tmp_path)[0]["fraction_of_matrix_rate"]) < 1


def test_only_the_first_rank_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    some_steps(tmp_path, 1, 4, rank=1)
    assert capsys.readouterr().out == "" and not list(tmp_path.iterdir())


def test_a_log_that_cannot_be_written_does_not_stop_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "log.csv").mkdir()
    some_steps(tmp_path, 1, 4)
    said = capsys.readouterr()
    assert said.err.count("log.csv can't be used") == 1 and said.out.count("step") == 2


class FakeWriter:
    """Stands for TensorBoard's and for W&B's run; fails from step 4 on."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.told.append((name, value, step))

    def log(self, figures: dict[str, float], step: int) -> None:
        if step >= 4:
            raise ConnectionError("no route to host")
        self.told.append((step, figures["loss"]))

    def close(self) -> None:
        self.told.append("closed")

    finish = close


def test_tensorboard_and_wandb_get_the_figures_where_installed_and_may_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    board, wandb, options = FakeWriter(), FakeWriter(), {}

    def init(**given: Any) -> FakeWriter:
        options.update(given)
        return wandb

    find = importlib.util.find_spec
    installed = ("tensorboard", "wandb")
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: True if name in installed else find(name)
    )
    fake = SimpleNamespace(SummaryWriter=lambda folder: board)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    monkeypatch.delenv("WANDB_MODE", raising=False)
    some_steps(tmp_path, 1, 6)
    assert ("loss", 1.5, 2) in board.told and ("answers", 0.5, 6) in board.told
    assert board.told[-1] == "closed"
    assert wandb.told == [(2, 1.5)]  # dropped when it failed at step 4
    assert options["mode"] == "offline" and options["dir"] == str(tmp_path)
    assert "W&B failed" in capsys.readouterr().err
    assert [r["step"] for r in rows(tmp_path)] == ["2", "4", "6"]


def test_tensorboard_writes_an_event_file(tmp_path: Path):
    pytest.importorskip("tensorboard")
    some_steps(tmp_path, 1, 2)
    assert list((tmp_path / "tensorboard").glob("events*"))


def test_parameters_in_matrix_products_are_the_matrices_and_the_head_once():
    hawk = PRESETS["tiny-hawk"]
    width, mixer = hawk.width, hawk.pattern[0]
    inner, heads = mixer.width, mixer.heads
    block = 3 * width * inner + 2 * inner * inner // heads + 3 * width * hawk.mlp_width
    assert matmul_parameters(build("tiny-hawk")) == hawk.layers * block + hawk.vocab * width


def test_an_embedding_that_is_no_head_is_no_matrix_product():
    llama = build("tiny-llama")
    assert not llama.config.tied
    total = sum(p.numel() for p in llama.parameters() if p.dim() >= 2)
    assert matmul_parameters(llama) == total - llama.embed.weight.numel()


def test_the_matrix_rate_is_that_of_a_machine():
    rate = matrix_rate(torch.device("cpu"), bf16=False, seconds=0.0)
    assert 1e8 < rate < 1e15
