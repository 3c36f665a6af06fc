"""A process is killed: the others say which and stop, and the run goes on to the same bits."""

from pathlib import Path
from typing import Any

import pytest
import torch

from griffin_lm.training.resume import load, newest
from tests.training.distributed.conftest import WORKER
from tests.training.distributed.launch import Ended, rank_of, torchrun

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

RECIPE = """
from tests.training.distributed.runs import config
from dataclasses import replace
from griffin_lm.models import PRESETS

def recipe():
    model = replace(PRESETS["tiny-griffin"], vocab=2048)
    return config(2, model=model, steps=20, accumulate=2, save_steps=5, log_every=1, keep=3)
"""


def pretrain(data: Path, out: Path, *more: str, **options: Any) -> Ended:
    """`torchrun ... griffin pretrain` with two processes."""
    recipe = out.with_suffix(".py")
    recipe.write_text(RECIPE)
    words = ["-m", "griffin_lm.cli.main", "pretrain", str(recipe), "--device", "cpu"]
    return torchrun(2, *words, "--data", str(data), "--out", str(out), *more, **options)


def content(path: Path) -> dict[str, Any]:
    """What must not depend on whether it was stopped."""
    saved = load(path)
    del saved["progress"]["seconds"]
    del saved["random"]["python"], saved["random"]["numpy"]  # not seeded, and not drawn from
    return saved


def same(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def killed(data: Path, out: Path, rank: int) -> Path:
    """A run of which one process is killed at step 12; its newest checkpoint."""
    done: list[int] = []

    def kill(line: str, parent: int) -> None:
        if line.startswith("step 12 ") and not done:
            rank_of(parent, rank).kill()
            done.append(rank)

    ended = pretrain(data, out, seen=kill)
    assert done and ended.code != 0 and not ended.left
    assert ended.seconds < 60
    said = f"griffin: process {rank} died: no sign of life"
    assert said in ended.text and "--resume auto" in ended.text, ended.text
    path = newest(out)
    assert path is not None and path.name in ("step-5", "step-10")
    return path


def test_the_first_process_is_killed_and_the_other_says_so(data: Path, tmp_path: Path):
    killed(data, tmp_path / "run", 0)


def test_a_run_with_a_killed_process_goes_on_to_the_same_bits(data: Path, tmp_path: Path):
    """20 steps = 10, SIGKILL, and the rest; then once more from before a damaged checkpoint."""
    run = tmp_path / "run"
    path = killed(data, run, 1)
    again = pretrain(data, run, "--resume", "auto")
    assert again.code == 0, again.text
    assert f"going on from step {path.name.removeprefix('step-')}" in again.text
    whole = pretrain(data, tmp_path / "whole")
    assert whole.code == 0, whole.text
    wanted = content(tmp_path / "whole" / "step-20")
    assert same(wanted, content(run / "step-20"))
    shard = next((run / "step-20" / "shards").iterdir())
    shard.write_bytes(shard.read_bytes()[:-5] + b"wrong")
    third = pretrain(data, run, "--resume", "auto")
    assert third.code == 0, third.text
    assert "passed over step-20: " in third.text and "SHA-256 differs" in third.text
    assert "going on from step 15" in third.text
    assert same(wanted, content(run / "step-20"))


def test_out_of_memory_on_one_process_stops_all_with_advice(data: Path, tmp_path: Path):
    ended = torchrun(2, *WORKER, str(data), str(tmp_path), "crowded")
    assert ended.code != 0 and not ended.left and ended.seconds < 60
    advice = "rank 1 ran out of memory at step 1 (CUDA out of memory. Tried to allocate 3 GiB); "
    assert f"{advice}start again with --set rows=1 --set accumulate=2" in ended.text, ended.text
    assert f"process 1 stopped: {advice}" in ended.text, ended.text


def test_torchrun_starts_all_again_by_itself_if_told_to(data: Path, tmp_path: Path):
    done: list[int] = []

    def kill(line: str, parent: int) -> None:
        if line.startswith("step 12 ") and not done:
            rank_of(parent, 1).kill()
            done.append(1)

    ended = pretrain(data, tmp_path / "run", "--resume", "auto", seen=kill, restarts=1)
    assert done and ended.code == 0, ended.text
    assert "process 1 died" in ended.text and "going on from step " in ended.text
    assert newest(tmp_path / "run") == tmp_path / "run" / "step-20"
