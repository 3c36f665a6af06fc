"""Two processes go where one goes, and a checkpoint serves any number of them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from griffin_lm.errors import CheckpointNotFound
from griffin_lm.training.batch import World
from griffin_lm.training.export import export
from griffin_lm.training.resume import load
from tests.training.distributed.conftest import WORKER, one_process, results
from tests.training.distributed.launch import torchrun
from tests.training.distributed.runs import MIXERS, SETTINGS, held_by, opened, trained

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def furthest(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Weights and moments to the bit."""
    return all(
        one[part].keys() == other[part].keys()
        and all(torch.equal(one[part][name], other[part][name]) for name in one[part])
        for part in ("weights", "moments")
    )


@pytest.mark.parametrize(
    "name", [name for name in SETTINGS if "32" not in name and "16" not in name]
)
def test_three_steps_of_two_processes_are_those_of_one(
    two: Path, data: Path, tmp_path: Path, name: str
):
    """Loss, clip norm, every gradient, weight and moment, of packed rows, in float64."""
    many = results(two, "equal")[name]
    alone = trained(opened(data, tmp_path, World(), **SETTINGS[name]))
    assert alone["tokens"] == many["tokens"] > 0
    assert many["loss"] == pytest.approx(alone["loss"], rel=1e-12)
    assert many["norm"] == pytest.approx(alone["norm"], rel=1e-12)
    assert min(alone["norm"]) > 0.5  # so that it was clipped
    for one, other in zip(alone["gradients"], many["gradients"], strict=True):
        assert furthest(one, other) < 1e-13
    assert furthest(alone["weights"], many["weights"]) < 1e-11
    assert furthest(alone["moments"], many["moments"]) < 1e-13


def test_in_fp32_they_agree_to_a_millionth(two: Path, data: Path, tmp_path: Path):
    """Weights less so: AdamW makes a gradient that is nearly 0 as large as any other."""
    many = results(two, "equal")["fp32"]
    alone = trained(opened(data, tmp_path, World(), **SETTINGS["fp32"]))
    assert many["loss"] == pytest.approx(alone["loss"], rel=1e-6)
    assert many["norm"] == pytest.approx(alone["norm"], rel=1e-6)
    for one, other in zip(alone["gradients"], many["gradients"], strict=True):
        assert furthest(one, other) < 1e-6
    assert furthest(alone["weights"], many["weights"]) < 1e-5


def test_in_bf16_they_agree_as_far_as_bf16_does(two: Path, data: Path, tmp_path: Path):
    """Matrices travel as bf16, to which one process's autocast rounds them too."""
    many = results(two, "equal")["bf16"]
    alone = trained(opened(data, tmp_path, World(), **SETTINGS["bf16"]))
    assert many["loss"] == pytest.approx(alone["loss"], rel=1e-3)
    assert many["norm"] == pytest.approx(alone["norm"], rel=5e-3)


def test_lambda_gates_and_norms_stay_fp32_while_matrices_are_bf16(two: Path):
    found = results(two, "precision")
    narrow = {name for name, kind in found["kinds"].items() if kind == torch.bfloat16}
    wide = {name for name, kind in found["kinds"].items() if kind == torch.float32}
    assert {"mixer.cell.Lambda", "mixer.cell.a_gate.w", "mixer.cell.x_gate.b"} <= wide
    assert {"mixer_norm.scale", "mlp_norm.scale"} <= wide
    assert {"mixer.linear_x.weight", "mlp.down.weight"} <= narrow
    assert found["moments"] == {torch.float32}


def test_every_mixer_is_trained_by_two_processes_in_bf16(two: Path, data: Path, tmp_path: Path):
    found = results(two, "precision")
    for name in MIXERS:
        run = opened(data, tmp_path, World(), torch.float32, bf16=True, model=name)
        assert found[name] == pytest.approx([run.step().loss for _ in range(2)], rel=1e-3), name


def test_a_checkpoint_holds_what_was_when_it_was_asked_for(two: Path):
    """Weights were zeroed while the thread wrote."""
    found = results(two, "saved")
    assert same(found["before"], found["after"])


def test_a_checkpoint_of_two_processes_serves_one(two: Path, data: Path, tmp_path: Path):
    found = results(two, "saved")
    run = opened(data, tmp_path / "run", World(), torch.float32)
    run.restore(load(two / "saved" / "step-2"))
    assert same(held_by(run), found["before"])
    assert [run.step().loss for _ in range(2)] == pytest.approx(found["then"], rel=1e-6)


def test_checkpoints_of_one_and_of_two_processes_serve_two_and_four(
    two: Path, data: Path, tmp_path: Path
):
    (tmp_path / "resharded" / "from-2").mkdir(parents=True)
    (tmp_path / "resharded" / "from-2" / "step-2").symlink_to(two / "saved" / "step-2")
    alone = one_process(data, tmp_path / "resharded" / "from-1")
    ended = torchrun(4, *WORKER, str(data), str(tmp_path), "resharded")
    assert ended.code == 0, ended.text
    saved = results(two, "saved")
    for_two, for_four = results(two, "resharded"), results(tmp_path, "resharded")
    for found in (for_two["from-1"], for_four["from-1"]):
        assert same(found, alone)
        assert found["then"] == pytest.approx(alone["then"], rel=1e-6)
    assert same(for_four["from-2"], saved["before"])
    assert for_four["from-2"]["then"] == pytest.approx(saved["then"], rel=1e-6)


def test_a_run_of_two_processes_is_exported(two: Path, tmp_path: Path):
    from griffin_lm import inference

    with pytest.raises(CheckpointNotFound, match=r"several training processes.*training\.export"):
        inference.load(two / "saved")
    facts = export(two / "saved", tmp_path / "model")
    assert facts["steps"] == 2
    lm = inference.load(tmp_path / "model", device="cpu", dtype="float32")
    kept = results(two, "saved")["before"]["weights"]
    for name, tensor in lm.model.state_dict().items():
        torch.testing.assert_close(tensor, kept[name], rtol=2**-8, atol=1e-6)


def test_a_full_disk_of_one_process_stops_all_and_leaves_the_older_checkpoint(two: Path):
    found = results(two, "saved")
    assert len(set(found["refused"])) == 1
    words = found["refused"][0]
    assert "process 1: No space left on device; step-2 is as it was" in words
    assert found["held"] == ["step-2"] and not found["left"]


def test_a_loss_that_is_not_finite_on_one_process_stops_all_before_the_update(two: Path):
    found = results(two, "broken")
    assert len(set(found["words"])) == 1
    assert "the loss is nan at step 1, batch 1 of rank 1 (epoch 1, documents" in found["words"][0]
    assert same(found["before"], found["after"]) and not found["gradients"]


def test_a_signal_to_one_process_saves_on_all(two: Path):
    found = results(two, "signalled")
    assert found["codes"] == ["143", "143"] and found["held"] == ["step-2"]
