"""A run that saves after every step, to be killed: weights are a function of the steps done."""

import os
import shutil
import signal
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from griffin_lm.bench.reliability.kills import train
from griffin_lm.training.config import TrainConfig
from griffin_lm.training.pretraining import open_run
from griffin_lm.training.resume import Saver, load, newest
from griffin_lm.training.trainer import Trainer
from tests.training.resume.values import CONFIG

SIZE = 50_000


def beginning() -> dict[str, Any]:
    """Step 0, with a random generator whose draws make the steps."""
    draw = torch.Generator().manual_seed(0)
    return {
        "model": {"a": torch.zeros(SIZE), "b": torch.zeros(SIZE)},
        "config": CONFIG,
        "random": draw.get_state(),
        "progress": {"steps": 0},
    }


def steps(value: dict[str, Any], last: int) -> Iterator[dict[str, Any]]:
    """The content after each step from `value` on; the same tensors, changed in place."""
    draw = torch.Generator()
    draw.set_state(value["random"])
    for step in range(value["progress"]["steps"] + 1, last + 1):
        for tensor in value["model"].values():
            tensor.mul_(0.9).add_(torch.randn(SIZE, generator=draw))
        value["random"] = draw.get_state()
        value["progress"] = {"steps": step}
        yield value


def run(out: Path, last: int, going: Connection) -> None:
    """Goes on from the newest checkpoint to step `last`; sends each step that it begins to save."""
    path = newest(out, lambda _: None)
    value = beginning() if path is None else load(path)
    going.send(value["progress"]["steps"])
    with Saver(out, keep=2) as saver:
        for after in steps(value, last):
            saver.save(after["progress"]["steps"], after)
            going.send(after["progress"]["steps"])


def killed_after(config: TrainConfig, data: Path, out: Path, steps: int) -> None:
    """A run that gets SIGKILL after so many steps, once they are saved."""
    trainer = open_run(config, data, out, "cpu")
    step = trainer.step

    def last() -> Any:
        if trainer.steps == steps:
            newest(out)  # waits for the save that is under way
            os.kill(os.getpid(), signal.SIGKILL)
        return step()

    trainer.step = last
    trainer.run(True)


def forgetful(*arguments: Any) -> None:
    """A run that takes up everything but its place in the data."""
    restore = Trainer.restore

    def without_feed(self: Trainer, saved: dict[str, Any]) -> None:
        restore(self, saved | {"feed": self.feed.to_dict()})

    Trainer.restore = without_feed
    train(*arguments)


def starts_again(config: TrainConfig, data: Path, out: Path, *others: Any) -> None:
    """A run that loses what it had."""
    for path in out.glob("step-*"):
        shutil.rmtree(path)
    train(config, data, out, *others)


def ends(config: TrainConfig, data: Path, out: Path, until: int, going: Connection) -> None:
    """A process that gives up."""
    going.close()
    os._exit(7)
