"""The runs of `recall`: tasks, sizes, training, and what is asked afterwards."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from ..models import Griffin
from ..shapes import JSON
from . import memo
from .architectures import Shape, inner_parameters, sized
from .fit import Recipe, fit, trainer_for
from .memo import Memo
from .study import Cell, Done, Place
from .sweep import Sweep
from .synthetic import TASKS, Task

ALL = ("griffin", "hawk", "lru", "gru", "mamba", "mqa", "mha", "local")
FEW = ("griffin", "hawk", "lru", "gru", "mamba", "mqa", "local")
SOLVED = 0.995  # twice in a row
TESTED = 10**6  # the seed of rows that are asked about: none that was trained on
_CHUNK = 1024


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One task, how it is trained, and the lengths it is then asked at.

    window: of local attention. every: steps between looks at 256 rows. lengths: asked at the end;
    budget: tokens that each of them may take (at least 16 rows, at most 512 are asked); farthest:
    the longest that models with global attention are asked at, whose time grows with its square.
    architectures, sweep: where they are not the study's. aside: said beside its name on the page,
    such as that its figures answer nothing.
    """

    task: Task
    window: int
    recipe: Recipe
    every: int
    lengths: tuple[int, ...] = ()
    budget: int = 2**18
    farthest: int = 4096
    architectures: tuple[str, ...] = ()
    sweep: Sweep | None = None
    aside: str = ""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """shape: of every model, but for vocabulary and window, which are the trial's; memo: of memo
    and needle by distance, None: not asked.
    """

    shape: Shape
    trials: Mapping[str, Trial]
    sweep: Sweep
    memo: Memo | None = None
    architectures: tuple[str, ...] = FEW

    def of(self, trial: str) -> tuple[str, ...]:
        """The architectures of a trial."""
        return self.trials[trial].architectures or self.architectures

    def sweep_of(self, trial: str) -> Sweep:
        """The sweep of a trial."""
        return self.trials[trial].sweep or self.sweep


_SHAPE = Shape(vocab=16, width=64, layers=3, heads=4, window=32, mlp_width=128)
_MEMO = Shape(vocab=2048, width=64, layers=3, heads=4, window=32, mlp_width=128)
_PAPER = Shape(vocab=16, width=64, layers=5, heads=4, window=128, mlp_width=192)


_ONE = Sweep(rates=(0.004,), factor=4.0, seeds=(0, 1), extend=0)
_TWO = replace(_ONE, rates=(0.001, 0.004))


def _lengths(low: int, high: int, step: int = 1) -> tuple[int, ...]:
    return tuple(2**power for power in range(low, high + 1, step))


SCALES = {
    "tiny": Settings(
        shape=Shape(vocab=16, width=16, layers=3, heads=2, window=8, mlp_width=32),
        trials={
            "induction": Trial(
                task=Task("induction", 8, 16),
                window=8,
                recipe=Recipe(steps=4, rows=4, length=16),
                every=2,
                lengths=(16, 64),
                budget=64,
            )
        },
        sweep=Sweep(rates=(0.004,), factor=4.0, seeds=(0,), extend=0),
        memo=Memo(
            shape=replace(_MEMO, width=16, heads=2, window=8, mlp_width=32),
            recipe=Recipe(steps=4, rows=2, length=64),
            longest=16,
            distances=(8, 32),
            far=(16,),
            farthest=8,
            rows=2,
            characters=100_000,
            architectures=("griffin", "mqa"),
        ),
        architectures=("griffin",),
    ),
    "smoke": Settings(
        shape=_SHAPE,
        trials={
            "induction": Trial(
                task=Task("induction", 16, 32),
                window=16,
                recipe=Recipe(steps=60, rows=32, length=32),
                every=30,
                lengths=_lengths(5, 9, 2),
                budget=2**13,
            ),
            "copying": Trial(
                task=Task("copying", 16, 36, 4),
                window=16,
                recipe=Recipe(steps=60, rows=32, length=36),
                every=30,
            ),
            "mqar-4": Trial(
                task=Task("mqar", 64, 32, 4),
                window=32,
                recipe=Recipe(steps=60, rows=32, length=32),
                every=30,
            ),
        },
        sweep=Sweep(rates=(0.004,), factor=4.0, seeds=(0,), extend=0),
        architectures=("griffin", "hawk", "mqa"),
    ),
    "cpu": Settings(
        shape=_SHAPE,
        trials={
            "induction": Trial(
                task=Task("induction", 16, 64),
                window=32,
                recipe=Recipe(steps=600, rows=64, length=64),
                every=100,
                lengths=_lengths(6, 16, 2),
                sweep=_TWO,
            ),
            "copying": Trial(
                task=Task("copying", 16, 72, 8),
                window=32,
                recipe=Recipe(steps=600, rows=64, length=72),
                every=100,
                architectures=("griffin", "hawk", "lru", "mamba", "mqa"),
                sweep=_TWO,
            ),
            "mqar-4": Trial(
                task=Task("mqar", 64, 64, 4),
                window=64,
                recipe=Recipe(steps=400, rows=32, length=64),
                every=100,
                architectures=("griffin", "hawk", "lru", "mqa"),
                sweep=_TWO,
                aside="did not answer",
            ),
            **{
                f"mqar-{pairs}": Trial(  # vocabularies in which every key occurs in every row
                    task=Task("mqar", 2 * pairs + 2, 4 * pairs, pairs),
                    window=4 * pairs,
                    recipe=Recipe(steps=steps, rows=32, length=4 * pairs, warmup=200),
                    every=100,
                    architectures=("griffin", "hawk", "lru", "mamba", "mqa"),
                    sweep=_ONE,
                )
                for pairs, steps in ((8, 1000), (12, 2000))
            },
        },
        sweep=Sweep(rates=(0.001, 0.004, 0.016), factor=4.0, seeds=(0, 1)),
        memo=Memo(
            shape=_MEMO,
            recipe=Recipe(steps=300, rows=8, length=256),
            longest=128,
            distances=(16, 64, 128, 256, 1024, 4096),
            far=(16, 64, 256, 1024, 4096),
            farthest=1024,
            rows=32,
        ),
    ),
    "gpu": Settings(
        shape=_PAPER,
        trials={
            "induction": Trial(
                task=Task("induction", 16, 256),
                window=128,
                recipe=Recipe(steps=4000, rows=128, length=256),
                every=200,
                lengths=_lengths(6, 20, 2),
                budget=2**22,
                farthest=2**14,
            ),
            "copying": Trial(
                task=Task("copying", 16, 1024, 16),
                window=512,
                recipe=Recipe(steps=3000, rows=64, length=1024),
                every=200,
            ),
            **{
                f"mqar-{pairs}": Trial(
                    task=Task("mqar", 8192, length, pairs),
                    window=256,
                    recipe=Recipe(steps=4000, rows=256, length=length),
                    every=200,
                )
                for length, pairs in ((64, 4), (128, 8), (256, 16), (512, 64))
            },
        },
        sweep=Sweep(rates=(0.0005, 0.001, 0.002, 0.004, 0.008), factor=2.0, seeds=(0, 1, 2)),
        memo=Memo(
            shape=replace(_MEMO, width=128, layers=6, window=64, mlp_width=256),
            recipe=Recipe(steps=6000, rows=32, length=512),
            longest=256,
            distances=(16, 64, 256, 1024, 4096, 16_384, 65_536),
            far=(64, 256, 1024, 4096, 16_384, 65_536),
            farthest=16_384,
            rows=48,
            rate=0.002,
        ),
        architectures=ALL,
    ),
}


def settings_of(settings: Settings, trial: str, name: str) -> JSON:
    """A cell's settings, but for rate and seed."""
    chosen = settings.trials[trial]
    return {
        "trial": trial,
        "architecture": name,
        "task": list(chosen.task),
        "window": chosen.window,
        "recipe": asdict(chosen.recipe),
        "shape": vars(settings.shape),
    }


def plan(settings: Settings, done: Done) -> list[Cell]:
    """Task by task, the rates of every architecture, memos; then more seeds at the best."""
    cells: list[Cell] = []
    for trial in settings.trials:
        for name in settings.of(trial):
            wanted = settings_of(settings, trial, name)
            cells += settings.sweep_of(trial).cells(done, f"{trial}-{name}", wanted)
    if settings.memo is not None:
        cells += memo.plan(settings.memo)
    return sorted(cells, key=lambda cell: cell.settings["seed"])


@dataclass
class _Course:
    """Accuracy by step while a model learns; ends it once solved twice in a row."""

    trial: Trial
    device: torch.device
    seen: list[tuple[int, float]] = field(default_factory=list[tuple[int, float]])

    def __call__(self, model: Griffin, step: int) -> bool:
        self.seen.append((step, accuracy(model, self.trial.task, 256, self.device)))
        return len(self.seen) > 1 and min(found for _, found in self.seen[-2:]) >= SOLVED


def measure(settings: Settings, cell: Cell, place: Place) -> JSON:
    """Accuracy by step, at the end, and by length; score: what is wrong at the end."""
    if settings.memo is not None and cell.settings["trial"] == memo.TRIAL:
        return memo.measure(settings.memo, cell, place)
    wanted, trial = cell.settings, settings.trials[cell.settings["trial"]]
    shape = Shape(**{**vars(settings.shape), "vocab": trial.task.vocab, "window": trial.window})
    config = sized(wanted["architecture"], shape)
    draw = TASKS[trial.task.name]
    trainer = trainer_for(
        config,
        lambda random, step: draw(random, trial.recipe.rows, trial.task),
        trial.recipe,
        wanted["rate"],
        wanted["seed"],
        place,
    )
    course = _Course(trial, place.device)
    trained = fit(trainer, trial.recipe.steps, trial.every, course)
    model: Griffin = trainer.model
    with torch.inference_mode():
        reached = accuracy(model, trial.task, 512, place.device)
        by_length: JSON = {}
        endless = wanted["architecture"] not in ("mqa", "mha", "llama")
        for length in trial.lengths:
            if endless or length <= trial.farthest:
                rows = max(16, min(512, trial.budget // length))
                task = trial.task._replace(length=length)
                by_length[str(length)] = round(accuracy(model, task, rows, place.device), 4)
    solved = [step for step, found in course.seen if found >= SOLVED]
    return {
        "score": round(1 - reached, 5),
        "accuracy": round(reached, 5),
        "by_step": [(step, round(found, 4)) for step, found in course.seen],
        "solved_at": solved[0] if solved else None,
        "by_length": by_length,
        "parameters": inner_parameters(config),
        "state_bytes": model.empty_state(1).nbytes,
        **trained,
    }


def accuracy(model: Griffin, task: Task, rows: int, device: torch.device) -> float:
    """The share of answers that have the largest logit; rows of any length, read in chunks."""
    batch = TASKS[task.name](np.random.default_rng(TESTED), rows, task).to(device)
    state, right = model.empty_state(rows), 0.0
    for begin in range(0, task.length, _CHUNK):
        part = batch.part(slice(None), slice(begin, begin + _CHUNK))
        asked = bool(part.weight.any())
        hidden, state = model.hidden(part.tokens, state=state, donate=True)
        if asked:
            counted = part.weight > 0
            logits: Tensor = model.head(hidden[counted])
            right += float((logits.argmax(-1) == part.targets[counted]).sum())
    return right / float(batch.weight.sum())
