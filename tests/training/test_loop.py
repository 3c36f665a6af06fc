"""The loop: resuming is exact, a broken step changes nothing, the budget ends it."""

import csv
import itertools
from pathlib import Path

import pytest
import torch

from griffin_lm.errors import CheckpointCorrupt, TrainingError
from griffin_lm.training import checkpoint
from griffin_lm.training.config import TrainConfig, with_settings
from griffin_lm.training.export import export
from griffin_lm.training.loop import Run, train


def weights(run: Run) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in run.model.parameters()]


def test_a_resumed_run_is_to_the_bit_the_run_that_was_not_stopped(
    run: Run, config: TrainConfig, books: Path, out: Path
):
    for _ in range(3):
        run.advance()
    checkpoint.save(out, run.to_dict())
    saved = checkpoint.load(out)
    assert saved is not None
    other = Run(config, books, out)
    other.restore(saved)
    for _ in range(3):
        assert run.advance() == other.advance()
    assert all(torch.equal(a, b) for a, b in zip(weights(run), weights(other), strict=True))
    mine, theirs = (checkpoint.state_to_list(each.state) for each in (run, other))
    assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))
    assert run.course.to_dict() == other.course.to_dict()


def test_a_loss_that_is_not_finite_raises_before_the_update(run: Run):
    run.advance()
    before = weights(run)
    with torch.no_grad():
        run.model.final_norm.scale[0] = torch.inf
    with pytest.raises(TrainingError, match="step 1"):
        run.advance()
    changed = [n for n, p in run.model.named_parameters() if p.grad is not None and p.grad.any()]
    assert not changed
    same = [torch.equal(a, b) for a, b in zip(before, weights(run), strict=True)]
    assert same.count(False) == 1  # the one that was broken on purpose


def test_training_lowers_the_loss(config: TrainConfig, books: Path, out: Path):
    run = Run(with_settings(config, ["peak_rate=0.01", "bf16=false"]), books, out)
    losses = [run.advance()["prose"] for _ in range(30)]
    assert losses[0] == pytest.approx(7.6, abs=0.8)  # ln 2048
    assert min(losses[-5:]) < losses[0] - 1.5


def test_a_run_ends_at_its_budget_and_writes_a_log(config: TrainConfig, books: Path, out: Path):
    train(config, books, out)
    rows = list(csv.DictReader((out / "log.csv").read_text().splitlines()))
    assert [row["step"] for row in rows] == ["2", "4", "6", "8", "10"]
    saved = checkpoint.load(out)
    assert saved is not None and saved["progress"][:2] == [10, 640]


def test_an_old_run_is_not_overwritten_by_accident(config: TrainConfig, books: Path, out: Path):
    train(config, books, out)
    with pytest.raises(TrainingError, match="--resume auto"):
        train(config, books, out)


def test_a_run_of_another_model_is_not_gone_on_with(
    run: Run, config: TrainConfig, books: Path, out: Path
):
    checkpoint.save(out, run.to_dict())
    with pytest.raises(TrainingError, match="another model"):
        train(with_settings(config, ["model=tiny-griffin"]), books, out, resume=True)


def test_a_full_disk_leaves_the_older_checkpoint(
    run: Run, out: Path, monkeypatch: pytest.MonkeyPatch
):
    checkpoint.save(out, run.to_dict())
    old = (out / checkpoint.NAME).read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(TrainingError, match="No space left"):
        checkpoint.save(out, run.to_dict())
    assert (out / checkpoint.NAME).read_bytes() == old
    assert not list(out.glob("*.part"))


def test_a_truncated_checkpoint_is_named(run: Run, out: Path):
    checkpoint.save(out, run.to_dict())
    path = out / checkpoint.NAME
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointCorrupt, match=r"training\.pt"):
        checkpoint.load(out)


def test_short_windows_are_as_frequent_as_asked(run: Run):
    windows = torch.cat([run.windows() for _ in range(500)])
    short = windows < 24
    assert short.float().mean() == pytest.approx(0.6, abs=0.06)
    assert windows[short].min() == 4 and windows[short].max() == 16


def test_answers_count_apart_from_prose(run: Run):
    """With no answer in a step the answers' mean is 0, not NaN."""
    seen = [run.advance()["answers"] for _ in range(8)]
    assert all(loss == loss for loss in seen)
    assert any(loss > 1 for loss in seen)


def test_an_exported_run_loads_and_tells_its_facts(run: Run, out: Path, tmp_path: Path):
    from griffin_lm.inference import load

    run.advance()
    checkpoint.save(out, run.to_dict())
    facts = export(out, tmp_path / "model")
    assert (facts["steps"], facts["tokens"]) == (1, 64)
    assert list(facts["held_out"]) == ["kept"]
    lm = load(tmp_path / "model", device="cpu", dtype="float32")
    for mine, theirs in itertools.zip_longest(run.model.parameters(), lm.model.parameters()):
        torch.testing.assert_close(mine, theirs, rtol=2**-8, atol=1e-6)


def test_exporting_what_is_no_run_says_so(tmp_path: Path):
    with pytest.raises(TrainingError, match="holds no"):
        export(tmp_path, tmp_path / "model")
