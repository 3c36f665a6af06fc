"""The trainer: resuming is exact, a broken step changes nothing, the budget ends it."""

import csv
import itertools
import math
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from griffin_lm.checkpoints import load_model
from griffin_lm.errors import CheckpointNotFound, TrainingError
from griffin_lm.inference import load as load_lm
from griffin_lm.inference.converting import convert
from griffin_lm.inference.resolution import find
from griffin_lm.training.config import TrainConfig, with_settings
from griffin_lm.training.export import export
from griffin_lm.training.pretraining import open_run, pretrain
from griffin_lm.training.resume import Saver, disk, load, newest, state_to_list
from griffin_lm.training.trainer import Trainer


def save(out: Path, run: Trainer) -> None:
    Saver(out, keep=2, background=False).save(run.steps, run.to_dict())


def saved_in(out: Path) -> dict[str, Any]:
    path = newest(out)
    assert path is not None
    return load(path)


def weights(run: Trainer) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in run.model.parameters()]


def test_a_resumed_run_is_to_the_bit_the_run_that_was_not_stopped(
    run: Trainer, config: TrainConfig, books: Path, out: Path
):
    for _ in range(3):
        run.step()
    save(out, run)
    saved = saved_in(out)
    other = open_run(config, books, out, "cpu")
    other.restore(saved)
    for _ in range(3):
        assert run.step()[:2] == other.step()[:2]
    assert all(torch.equal(a, b) for a, b in zip(weights(run), weights(other), strict=True))
    assert run.state is not None and other.state is not None
    mine, theirs = (state_to_list(each.state) for each in (run, other))
    assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))
    assert same(run.feed.to_dict(), other.feed.to_dict())


def same(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) if isinstance(a, Tensor) else a == b


def test_a_loss_that_is_not_finite_raises_before_the_update(run: Trainer):
    run.step()
    before = weights(run)
    with torch.no_grad():
        run.model.final_norm.scale[0] = torch.inf
    with pytest.raises(TrainingError, match=r"step 1, batch 1 of rank 0 \(batch 1 of the course"):
        run.step()
    assert all(parameter.grad is None for parameter in run.model.parameters())
    unchanged = [torch.equal(a, b) for a, b in zip(before, weights(run), strict=True)]
    assert unchanged.count(False) == 1  # the one that was broken on purpose
    assert run.steps == 1


def test_a_gradient_that_is_not_finite_raises_before_the_update(run: Trainer):
    before = weights(run)
    run.model.final_norm.scale.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(TrainingError, match=r"norm is (nan|inf) at step 0, batches from 0"):
        run.step()
    assert all(torch.equal(a, b) for a, b in zip(before, weights(run), strict=True))
    assert not run.optimizer.state


def test_training_lowers_the_loss(config: TrainConfig, books: Path, out: Path):
    run = open_run(with_settings(config, ["peak_rate=0.01", "bf16=false"]), books, out, "cpu")
    losses: list[float] = []
    for _ in range(30):
        run.step()
        losses.append(run.feed.figures()["prose"])
    assert losses[0] == pytest.approx(7.6, abs=0.8)  # ln 2048
    assert min(losses[-5:]) < losses[0] - 1.5


def test_a_run_ends_at_its_budget_and_writes_a_log(config: TrainConfig, books: Path, out: Path):
    assert pretrain(config, books, out, False, "cpu") == 0
    rows = list(csv.DictReader((out / "log.csv").read_text().splitlines()))
    assert [row["step"] for row in rows] == ["2", "4", "6", "8", "10"]
    saved = saved_in(out)
    assert (saved["progress"]["steps"], saved["progress"]["tokens"]) == (10, 640)


def test_a_budget_in_steps_ends_it_too(config: TrainConfig, books: Path, out: Path):
    run = open_run(with_settings(config, ["steps=3"]), books, out, "cpu")
    assert run.run(False) == 0 and run.steps == 3


def test_an_old_run_is_not_overwritten_by_accident(config: TrainConfig, books: Path, out: Path):
    pretrain(config, books, out, False, "cpu")
    with pytest.raises(TrainingError, match="--resume auto"):
        pretrain(config, books, out, False, "cpu")


def test_a_run_of_another_model_is_not_gone_on_with(
    run: Trainer, config: TrainConfig, books: Path, out: Path
):
    save(out, run)
    with pytest.raises(TrainingError, match="another model"):
        pretrain(with_settings(config, ["model=fledgling"]), books, out, True, "cpu")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_step_saves_and_leaves(run: Trainer, out: Path, number: int, code: int):
    step, handler = run.step, signal.getsignal(number)

    def interrupted() -> Any:
        figures = step()
        if figures.steps == 2:
            os.kill(os.getpid(), number)
        return figures

    run.step = interrupted
    assert run.run(False) == code
    assert saved_in(out)["progress"]["steps"] == 2
    assert signal.getsignal(number) is handler


def test_a_disk_that_fills_up_ends_the_run_and_leaves_the_older_checkpoint(
    config: TrainConfig, books: Path, out: Path, monkeypatch: pytest.MonkeyPatch
):
    run = open_run(with_settings(config, ["save_steps=2"]), books, out, "cpu")
    step, write = run.step, disk.Disk.write

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    def stepped() -> Any:
        if run.steps == 3:
            assert newest(out) == out / "step-2"  # waits for it
            monkeypatch.setattr(disk.Disk, "write", full)
        return step()

    run.step = stepped
    with pytest.raises(TrainingError, match=r"No space left on device; step-2 is as it was"):
        run.run(False)
    monkeypatch.setattr(disk.Disk, "write", write)
    assert pretrain(config, books, out, True, "cpu") == 0
    assert newest(out) == out / "step-10"


def test_a_damaged_checkpoint_is_passed_over_and_the_run_ends_the_same(
    config: TrainConfig, books: Path, out: Path, capsys: pytest.CaptureFixture[str]
):
    config = with_settings(config, ["save_steps=4"])
    pretrain(config, books, out, False, "cpu")
    wanted = saved_in(out)
    path = out / "step-10" / "training.pt"
    path.write_bytes(path.read_bytes()[:1000])
    capsys.readouterr()
    pretrain(config, books, out, True, "cpu")
    said = capsys.readouterr().out
    assert "passed over step-10: " in said and "going on from step 8" in said
    again = saved_in(out)
    for value in (wanted, again):
        del value["progress"]["seconds"]
        del value["random"]["python"]  # the tests' type checker draws from it
    assert same(wanted, again)


def test_a_checkpoint_s_folder_is_also_a_model_to_load(run: Trainer, out: Path):
    save(out, run)
    model = load_model(out / "step-0", device="cpu", dtype=torch.float32)
    mine, theirs = run.model.state_dict(), model.state_dict()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_a_run_s_folder_is_a_model_to_load_and_to_convert(run: Trainer, out: Path, tmp_path: Path):
    """The checkpoint that `latest` names, with the tokenizer that lies beside it."""
    save(out, run)
    run.step()
    save(out, run)
    lm = load_lm(out, device="cpu", dtype="float32")
    mine, theirs = run.model.state_dict(), lm.model.state_dict()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    done = convert(find(out), tmp_path / "model", "griffin")
    assert done.tokenizer and load_lm(tmp_path / "model").generate("It was", max_new_tokens=1)
    shutil.rmtree(out / "step-1")
    with pytest.raises(CheckpointNotFound, match=r"names step-1, which is not there .*: step-0"):
        load_lm(out)


def test_an_exported_run_loads_and_tells_its_facts(run: Trainer, out: Path, tmp_path: Path):
    from griffin_lm import inference

    run.step()
    save(out, run)
    facts = export(out, tmp_path / "model")
    assert (facts["steps"], facts["tokens"]) == (1, 64)
    assert list(facts["held_out"]) == ["kept"]
    lm = inference.load(tmp_path / "model", device="cpu", dtype="float32")
    for mine, theirs in itertools.zip_longest(run.model.parameters(), lm.model.parameters()):
        torch.testing.assert_close(mine, theirs, rtol=2**-8, atol=1e-6)


def test_exporting_what_is_no_run_says_so(tmp_path: Path):
    with pytest.raises(TrainingError, match="holds no"):
        export(tmp_path, tmp_path / "model")
