"""Fine-tuning runs in fp32, the same ones in one process and in many."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from griffin_lm.training.batch import World
from griffin_lm.training.distributed import whole
from griffin_lm.training.finetuning.config import FinetuneConfig
from griffin_lm.training.finetuning.run import Prepared, open_base, prepare
from griffin_lm.training.resume import newest

STEPS = 4
WAYS: dict[str, dict[str, Any]] = {
    "all weights": {"adapter": False},
    "LoRA": {"adapter": True},
    "QLoRA": {"adapter": True, "quantize": "int4"},
}


def begun(folder: Path, out: Path, world: World, **way: Any) -> Prepared:
    """A run before its first step: four rows a step, shared out over the processes."""
    adapter, rows = way.pop("adapter"), folder / "rows.jsonl"
    config = FinetuneConfig(
        rank=3,
        alpha=5.0,
        rows=4 // world.size,
        length=48,
        steps=STEPS,
        warmup_steps=1,
        peak_rate=1e-2,
        bf16=False,
        dropout=way.pop("dropout", 0.0),
        targets=("linear_x", "down"),
    )
    base = open_base(str(folder / "base"), adapter=adapter, device="cpu", dtype="float32", **way)
    return prepare(base, rows, out, config, adapter=adapter, world=world)


def tuned(run: Prepared) -> dict[str, Any]:
    """All its steps."""
    figures = [run.tuner.step() for _ in range(STEPS - run.tuner.steps)]
    return {
        "loss": [one.loss for one in figures],
        "norm": [one.norm for one in figures],
        "learned": {name: one.clone() for name, one in run.tuner.learned().items()},
        "moments": moments(run),
    }


def moments(run: Prepared) -> dict[str, Tensor]:
    """The optimiser's, whole."""
    state: dict[int, dict[str, Any]] = run.tuner.optimizer.state_dict()["state"]
    return {
        f"{number} {name}": whole(one).clone()
        for number, found in state.items()
        for name, one in found.items()
        if isinstance(one, torch.Tensor)
    }


def halved(folder: Path, out: Path, world: World) -> dict[str, Any]:
    """With dropout: all steps at once, and half of them, saved, the rest by a new trainer."""
    way = {"adapter": True, "dropout": 0.3}
    at_once = tuned(begun(folder, out / "whole", world, **way))
    half = begun(folder, out / "half", world, **way).tuner
    for _ in range(STEPS // 2):
        half.step()
    with half.processes.saver(out / "half", 2) as saver:
        saver.save(half.steps, half.to_dict())
    torch.manual_seed(99)  # as a new process: nothing of the old one is left
    other = begun(folder, out / "half", world, **way)
    path = newest(out / "half")
    assert path is not None
    other.tuner.restore(other.tuner.processes.load(path, other.tuner.model, other.tuner.optimizer))
    return {"at once": at_once, "in two": tuned(other)}
