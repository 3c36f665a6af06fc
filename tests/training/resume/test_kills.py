"""Real processes, killed by SIGKILL at random moments while they save."""

import multiprocessing
import random
import shutil
import time
from pathlib import Path

import pytest

from griffin_lm.training.config import TrainConfig, with_settings
from griffin_lm.training.pretraining import open_run
from griffin_lm.training.resume import load, newest
from tests.training.resume.killed import beginning, run, steps, train
from tests.training.resume.values import same

LAST = 1_000_000


@pytest.mark.parametrize("kills", [4, pytest.param(50, marks=pytest.mark.slow)])
def test_a_run_killed_at_random_moments_ends_in_the_same_weights(tmp_path: Path, kills: int):
    draw, context = random.Random(kills), multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.training.resume.killed"])
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


@pytest.mark.parametrize("kills", [2, pytest.param(50, marks=pytest.mark.slow)])
def test_a_training_run_killed_at_random_moments_ends_in_the_same_weights(
    config: TrainConfig, books: Path, out: Path, tmp_path: Path, kills: int
):
    config = with_settings(config, [f"steps={6 * kills}", "save_steps=1"])
    draw, context = random.Random(kills), multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.training.resume.killed"])
    shutil.copytree(out, tmp_path / "whole")
    for killed in range(kills + 1):
        here, there = context.Pipe()
        process = context.Process(target=train, args=(config, books, out, there))
        process.start()
        if killed < kills:
            for _ in range(draw.randint(2, 5)):
                assert here.poll(120), "the process did not train"
                here.recv()
            time.sleep(draw.uniform(0.0, 0.05))
            process.kill()
        process.join()
        assert process.exitcode == (-9 if killed < kills else 0)
    assert open_run(config, books, tmp_path / "whole", "cpu").run(False) == 0
    ends = [load(folder / f"step-{6 * kills}") for folder in (out, tmp_path / "whole")]
    for end in ends:
        del end["progress"]["seconds"]
        del end["random"]  # the process's own, which this run draws nothing from
    assert same(*ends)
