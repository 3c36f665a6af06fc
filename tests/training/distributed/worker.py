"""Run under torchrun: many small scenarios in one start. Rank 0 writes what came of each."""

import math
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from griffin_lm.errors import TrainingError
from griffin_lm.training.batch import World
from griffin_lm.training.distributed import joined
from griffin_lm.training.resume import disk, held
from griffin_lm.training.signals import Signals
from griffin_lm.training.trainer import Trainer
from tests.training.distributed import tuning
from tests.training.distributed.runs import (
    MIXERS,
    SETTINGS,
    held_by,
    kinds_inside,
    opened,
    trained,
)


def refused(go: Callable[[], object]) -> str:
    """The words of the TrainingError that it ends with."""
    try:
        go()
    except TrainingError as error:
        return str(error)
    return "was not refused"


def equal(data: Path, out: Path, world: World) -> dict[str, Any]:
    """Three steps of each setting."""
    return {name: trained(opened(data, out, world, **given)) for name, given in SETTINGS.items()}


def precision(data: Path, out: Path, world: World) -> dict[str, Any]:
    """What is fp32 and what is not, while it computes; and that every mixer can be trained so."""
    run = opened(data, out, world, torch.float32, bf16=True)
    found: dict[str, Any] = {"kinds": kinds_inside(run, run.step)}
    found["moments"] = {one.dtype for one in held_by(run)["moments"].values()}
    for name in MIXERS:
        mixed = opened(data, out, world, torch.float32, bf16=True, model=name)
        found[name] = [mixed.step().loss for _ in range(2)]
    return found


def saved(data: Path, out: Path, world: World) -> dict[str, Any]:
    """Saves while it goes on; fails on one process's disk; goes on from what is there."""
    run = opened(data, out, world, torch.float32)
    trained(run, 2)
    before = held_by(run)
    with run.processes.saver(out, 3) as saver:
        saver.save(2, run.to_dict())
        with torch.no_grad():  # at once: the thread must not see it
            for parameter in run.model.parameters():
                parameter.zero_()
    again = opened(data, out, world, torch.float32)
    again.restore(again.processes.load(out / "step-2", again.model, again.optimizer))
    after = held_by(again)
    then = [again.step().loss for _ in range(2)]
    real = disk.Disk.write

    def full(self: disk.Disk, path: Path, fill: Any) -> None:
        if world.rank == 1 and path.name in ("shards", "rank-1.pt"):
            raise OSError(28, "No space left on device")
        real(self, path, fill)

    disk.Disk.write = full

    def save() -> None:
        with again.processes.saver(out, 3) as saver:
            saver.save(4, again.to_dict())

    words = refused(save)
    disk.Disk.write = real
    return {
        "before": before,
        "after": after,
        "then": then,
        "refused": again.processes.texts(words),
        "held": [path.name for path in held(out)],
        "left": [path.name for path in out.glob("*.tmp-*")],
    }


def broken(data: Path, out: Path, world: World) -> dict[str, Any]:
    """One process's loss is not a number; then one's gradient only."""
    run = opened(data, out, world)
    run.step()
    before, take = held_by(run), run.feed.take

    def spoiled(share: float) -> Any:
        batch = take(share)
        return batch._replace(weight=batch.weight * math.inf) if world.rank == 1 else batch

    run.feed.take = spoiled  # pyright: ignore[reportAttributeAccessIssue]  (planted)
    words = refused(run.step)
    return {
        "before": before,
        "after": held_by(run),
        "words": run.processes.texts(words),
        "gradients": [name for name, p in run.model.named_parameters() if p.grad is not None],
    }


def signalled(data: Path, out: Path, world: World) -> dict[str, Any]:
    """Only the second process is told to stop."""
    run = opened(data, out, world, torch.float32, steps=10)
    step = run.step

    def told() -> Any:
        figures = step()
        if figures.steps == 2 and world.rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return figures

    run.step = told  # pyright: ignore[reportAttributeAccessIssue]  (planted)
    code = run.run(False)
    return {"codes": run.processes.texts(str(code)), "held": [path.name for path in held(out)]}


def crowded(data: Path, out: Path, world: World) -> None:
    """The second process runs out of memory while the first waits for it."""
    run = opened(data, out, world)
    run.step()

    def hidden(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB")

    if world.rank == 1:
        run.model.hidden = hidden
    with Signals(passed_on=True):  # as in Trainer.run: torchrun's SIGTERM may come before the error
        run.step()


def resharded(data: Path, out: Path, world: World) -> dict[str, Any]:
    """Goes on from a checkpoint of another number of processes."""
    found: dict[str, Any] = {}
    for source in sorted(out.glob("from-*")):
        run: Trainer = opened(data, out, world, torch.float32)
        run.restore(run.processes.load(next(source.glob("step-*")), run.model, run.optimizer))
        found[source.name] = held_by(run) | {"then": [run.step().loss for _ in range(2)]}
    return found


def finetuned(data: Path, out: Path, world: World) -> dict[str, Any]:
    """Each way of fine-tuning, and what it writes in the end; stopped and gone on with."""
    found: dict[str, Any] = {}
    for name, way in tuning.WAYS.items():
        run = tuning.begun(data.parent / "tuning", out / name, world, **way)
        found[name] = tuning.tuned(run)
        found[name]["wrote"] = [path.relative_to(out) for path in run.finish(merge=way["adapter"])]
    return found | tuning.halved(data.parent / "tuning", out / "halves", world)


def main() -> None:
    """Arguments: data, out, names of scenarios."""
    data, out = Path(sys.argv[1]), Path(sys.argv[2])
    with joined("cpu") as world:
        for name in sys.argv[3:]:
            folder = out / name
            folder.mkdir(parents=True, exist_ok=True)
            result = globals()[name](data, folder, world)
            if world.rank == 0:
                torch.save(result, out / f"{name}.pt")


if __name__ == "__main__":
    main()
