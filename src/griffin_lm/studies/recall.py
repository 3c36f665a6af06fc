"""Recall: what a state of fixed size holds, and how far (Griffin, 6.2; Mamba, 4.1; Zoology)."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
from torch import Tensor

from ..models import Griffin
from ..shapes import JSON
from .architectures import LABELS, Shape, inner_parameters, sized
from .fit import Recipe, fit, trainer_for
from .page import joined
from .study import Cell, Done, Line, Panel, Place, Study, Table
from .sweep import Sweep, at_best, rate_said
from .synthetic import TASKS, Task

ALL = ("griffin", "hawk", "lru", "gru", "mamba", "mqa", "mha", "local")
FEW = ("griffin", "hawk", "lru", "gru", "mqa", "local")
SOLVED = 0.995  # twice in a row
TESTED = 10**6  # the seed of rows that are asked about: none that was trained on
_CHUNK = 1024


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One task, how it is trained, and the lengths it is then asked at.

    window: of local attention. every: steps between looks at 256 rows. lengths: asked at the end;
    budget: tokens that each of them may take (at least 16 rows, at most 512 are asked); farthest:
    the longest that models with global attention are asked at, whose time grows with its square.
    architectures, sweep: where they are not the study's.
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


@dataclass(frozen=True, kw_only=True)
class Settings:
    """shape: of every model, but for vocabulary and window, which are the trial's."""

    shape: Shape
    trials: Mapping[str, Trial]
    sweep: Sweep
    architectures: tuple[str, ...] = FEW

    def of(self, trial: str) -> tuple[str, ...]:
        """The architectures of a trial."""
        return self.trials[trial].architectures or self.architectures

    def sweep_of(self, trial: str) -> Sweep:
        """The sweep of a trial."""
        return self.trials[trial].sweep or self.sweep


_SHAPE = Shape(vocab=16, width=64, layers=3, heads=4, window=32, mlp_width=128)
_PAPER = Shape(vocab=16, width=64, layers=5, heads=4, window=128, mlp_width=192)


_FIXED = Sweep(rates=(0.001, 0.004, 0.016), factor=4.0, seeds=(0, 1), extend=0)


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
                sweep=_FIXED,
            ),
            "copying": Trial(
                task=Task("copying", 16, 72, 8),
                window=32,
                recipe=Recipe(steps=600, rows=64, length=72),
                every=100,
                architectures=("griffin", "hawk", "lru", "mqa"),
                sweep=_FIXED,
            ),
            "mqar-4": Trial(
                task=Task("mqar", 64, 64, 4),
                window=64,
                recipe=Recipe(steps=500, rows=64, length=64),
                every=100,
                architectures=("griffin", "hawk", "lru", "mqa"),
                sweep=_FIXED,
            ),
        },
        sweep=Sweep(rates=(0.001, 0.004, 0.016), factor=4.0, seeds=(0, 1)),
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
        architectures=ALL,
    ),
}


def _settings_of(settings: Settings, trial: str, name: str) -> JSON:
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
    """Task by task, the rates of every architecture; then more seeds at the best."""
    cells: list[Cell] = []
    for trial in settings.trials:
        for name in settings.of(trial):
            wanted = _settings_of(settings, trial, name)
            cells += settings.sweep_of(trial).cells(done, f"{trial}-{name}", wanted)
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
        place.device,
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


# ---- what it comes to


def _seeds(settings: Settings, done: Done, trial: str, name: str) -> Sequence[JSON]:
    wanted = _settings_of(settings, trial, name)
    return [figures for _, figures in at_best(done, settings.sweep_of(trial), wanted)]


def tables(settings: Settings, done: Done) -> list[Table]:
    """Accuracy and steps of each task; accuracy by length."""
    made: list[Table] = []
    for trial, chosen in settings.trials.items():
        rows: list[list[str]] = []
        for name in settings.of(trial):
            runs = _seeds(settings, done, trial, name)
            if not runs:
                continue
            steps = [str(run["solved_at"] or f"> {run['steps']}") for run in runs]
            rows.append(
                [
                    LABELS[name],
                    joined([run["accuracy"] for run in runs]),
                    ", ".join(steps),
                    rate_said(done, settings.sweep_of(trial), _settings_of(settings, trial, name)),
                    str(len(runs)),
                    f"{runs[0]['parameters']:,}",
                    f"{runs[0]['state_bytes']:,}" if name not in ("mqa", "mha") else "grows",
                ]
            )
        head = ["", "accuracy", "steps to 0.995, by seed", "rate", "seeds", "parameters", "state"]
        made.append(Table(f"{trial}: {_words(chosen)}", head, rows))
        if chosen.lengths:
            made.append(_by_length(settings, done, trial))
    return made


def _words(trial: Trial) -> str:
    task = trial.task
    sizes = f"{task.length} tokens, vocabulary {task.vocab}, window {trial.window}"
    return f"{task.asked} of {sizes}" if task.asked else sizes


def _by_length(settings: Settings, done: Done, trial: str) -> Table:
    lengths = settings.trials[trial].lengths
    rows: list[list[str]] = []
    for name in settings.of(trial):
        if runs := _seeds(settings, done, trial, name):
            found = [
                [run["by_length"][str(n)] for run in runs if str(n) in run["by_length"]]
                for n in lengths
            ]
            rows.append([LABELS[name], *(joined(some, ".2f") for some in found)])
    return Table(f"{trial}: accuracy by length", ["", *(f"{n:,}" for n in lengths)], rows)


def panels(settings: Settings, done: Done) -> list[Panel]:
    """Accuracy by step of each task, and by length."""
    made: list[Panel] = []
    for trial, chosen in settings.trials.items():
        learning: list[Line] = []
        reaching: list[Line] = []
        for name in settings.of(trial):
            runs = _seeds(settings, done, trial, name)
            if runs:
                steps, found = zip(*runs[0]["by_step"], strict=True)
                learning.append(Line(name, steps, found))
                lengths = [int(n) for n in runs[0]["by_length"]]
                every = [[run["by_length"].get(str(n), 0.0) for run in runs] for n in lengths]
                middle = [sorted(some)[len(some) // 2] for some in every]
                spread = [(min(some), max(some)) for some in every]
                reaching.append(Line(name, lengths, middle, spread))
        made.append(Panel(f"{trial}, one seed", "steps", "accuracy", learning, ""))
        if chosen.lengths:
            made.append(Panel(f"{trial}, by length", "tokens", "accuracy", reaching))
    return made


STUDY = Study(
    title="Recall: what a state holds, and how far",
    question="Which tasks of recall does each architecture learn, how fast, and how far?",
    setup="""\
Selective copying: data tokens among noise, then markers at which they are due in their order.
Induction heads: a special token somewhere and again at the end; what followed it is due. Trained
at one length, asked at others. MQAR: pairs of key and value, then each key again at a distance
drawn by a power law; its value is due. Generators follow the papers, sizes are smaller at scale
cpu. Every model has its MLPs (Zoology's have none), so that all have Griffin's parameters. Rows
are new at every step, and asked rows are of a seed of their own. bf16 products in training where
the processor computes in it, fp32 where it is asked. Learning curves are of one seed; tables show
the median of the seeds, the least and the most.""",
    beside="""\
- Griffin (2402.19427), 6.2 and appendix H: 5 blocks of width 64, selective copying at 1,024
  tokens and 16 data, induction heads at 256: MQA, Hawk and Griffin all solve both; Hawk is slow
  to learn copying; MQA with rotary positions fails beyond its training length, Hawk is perfect by
  orders of magnitude. Curves, no numbers.
- Mamba (2312.00752), table 11, induction heads trained at 2^8, accuracy at 2^8, 2^9, 2^10, 2^12,
  2^14, 2^16, 2^20: MHA with rotary positions 100, 83.6, 31.3, 8.6, 5.5, out of memory; H3 100,
  80.9, 39.5, 14.8, 5.9, 8.2, 7.4; Mamba 100 at all. Selective copying (4,096 tokens): S4 18.3,
  Mamba 99.8.
- MQAR, Zoology (2312.04927), figure 2: attention solves all at width 64; gated convolutions need
  a width that grows with length. Of Based's mix, read off its plot by eye (± 0.02), accuracy at
  bytes of state: sliding window 0.31 at 3e4, 0.80 at 2.6e5; Mamba 0.69 at 1.6e4. No point of Hawk
  or Griffin was published.""",
    limits="""\
Two or three layers of width 64 and minutes of training: that a model has not learned a task here
does not say that it can't. Where a curve ends unsolved, more steps might solve it; plateaus end
suddenly. Lengths, vocabularies and numbers of pairs at scale cpu are below the papers', so
figures are not to be compared with theirs number by number. Mamba is left to scale gpu: its scan
trains at about a thousand tokens a second on a CPU here. Memo and needle by distance are measured
on the bundled Griffin alone ([fledgling](../fledgling.md)); other architectures were not put
through its course.""",
    scales=SCALES,
    plan=plan,
    measure=measure,
    tables=tables,
    panels=panels,
)
