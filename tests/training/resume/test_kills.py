"""Real processes, killed by SIGKILL at random moments while they save."""

import multiprocessing
import random
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from griffin_lm.bench.reliability.kills import ARMS, FORKED, Killed, differences, kill, section
from griffin_lm.training.resume import load, newest
from tests.training.resume.killed import (
    beginning,
    ends,
    forgetful,
    killed_after,
    run,
    starts_again,
    steps,
)
from tests.training.resume.values import same

LAST = 1_000_000


@pytest.mark.parametrize("kills", [4, pytest.param(50, marks=pytest.mark.slow)])
def test_a_run_killed_at_random_moments_ends_in_the_same_weights(tmp_path: Path, kills: int):
    draw, context = random.Random(kills), multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*FORKED, "tests.training.resume.killed"])
    reached = 0
    for _ in range(kills):
        here, there = context.Pipe()
        process = context.Process(target=run, args=(tmp_path, LAST, there))
        process.start()
        begun = [here.recv() for _ in range(draw.randint(2, 5)) if here.poll(120)]
        assert begun and begun[0] >= reached, "what was there before is lost"
        time.sleep(draw.uniform(0.0, 0.1))
        process.kill()
        process.join()
        assert process.exitcode == -9
        path = newest(tmp_path, lambda _: None)
        assert path is not None  # saves wait for each other: the one before the last was whole
        reached = load(path)["progress"]["steps"]
        assert reached >= begun[-1] - 1
    assert reached >= kills - 1
    here, there = context.Pipe()
    process = context.Process(target=run, args=(tmp_path, reached + 2, there))
    process.start()
    process.join()
    assert process.exitcode == 0
    value = beginning()
    for value in steps(beginning(), reached + 2):  # noqa: B007  (the last one)
        pass
    assert same(load(tmp_path / f"step-{reached + 2}"), value)


@pytest.mark.parametrize("arm", ARMS)
def test_20_steps_are_10_a_kill_and_10_more(tmp_path: Path, arm: str):
    """Packing, accumulation, dropped windows, carried states; every tensor of the optimiser too."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*FORKED, "tests.training.resume.killed"])
    config, data, out = replace(ARMS[arm].config, steps=20), tmp_path / "data", tmp_path / "run"
    ARMS[arm].prepare(data, out)
    if out.exists():
        shutil.copytree(out, tmp_path / "whole")
    codes: list[int | None] = []
    for folder, last in ((out, 10), (out, 20), (tmp_path / "whole", 20)):
        often = replace(config, save_steps=10 if folder == out else 0)
        process = context.Process(target=killed_after, args=(often, data, folder, last))
        process.start()
        process.join()
        codes.append(process.exitcode)
    assert codes == [-9, 0, 0]
    one, other = (load(folder / "step-20") for folder in (out, tmp_path / "whole"))
    for end in (one, other):
        del end["progress"]["seconds"], end["random"]
    assert differences(one, other) == []
    moments = one["optimizer"]["state"]
    assert len(moments) == len(one["model"]) and all(
        "exp_avg_sq" in row for row in moments.values()
    )


@pytest.mark.parametrize("kills", [3, pytest.param(50, marks=pytest.mark.slow)])
@pytest.mark.parametrize("arm", ARMS)
def test_a_training_run_killed_at_random_moments_ends_in_the_same_weights(
    tmp_path: Path, arm: str, kills: int
):
    """The study of `griffin bench reliability --what kills`."""
    told: list[int] = []
    found = kill(ARMS[arm], kills, kills, tmp_path, told.append)
    assert found.failures == [] and found.equal
    assert found.kills == found.starting + found.training + found.saving == kills
    assert told == list(range(1, kills + 1)) and found.steps > 3
    if kills == 50:
        assert min(found.starting, found.training, found.saving) > 0
        assert found.resumed > 10 and found.steps > 60


@pytest.mark.slow
def test_the_study_sees_a_run_that_forgets_where_it_was_in_its_data(tmp_path: Path):
    found = kill(ARMS["packed"], 3, 0, tmp_path, child=forgetful)
    assert not found.equal
    assert any(text.startswith("the ends differ in /") for text in found.failures)


@pytest.mark.slow
def test_the_study_sees_checkpoints_that_vanish_and_processes_that_end(tmp_path: Path):
    found = kill(ARMS["packed"], 3, 0, tmp_path / "a", child=starts_again)
    assert any("went on from step 0" in text for text in found.failures)
    found = kill(ARMS["packed"], 2, 0, tmp_path / "b", child=ends)
    assert any("ended by itself with exit code 7" in text for text in found.failures)


def test_differences_are_named():
    one = {"a": [torch.zeros(2), 1], "b": {"c": 1.0}}
    assert differences(one, {"a": [torch.zeros(2), 1], "b": {"c": 1.0}}) == []
    other = {"a": [torch.tensor([0.0, 1e-45]), 1], "b": {"c": 1}}
    assert differences(one, other) == ["/a/0", "/b/c"]
    assert differences(one, {"a": []}) == [""]


def test_the_section_tells_every_failure():
    row = Killed("packed", "rows", kills=2, starting=1, saving=1, steps=9, equal=False)
    row.failures.append("the ends differ in /model")
    text = section({"rows": [row.plain()]})
    assert "| packed: rows | 2 | 1 | 0 | 1 | 0 | 9 | DIFFERENT | 1 |" in text
    assert "- packed: the ends differ in /model" in text
