"""Loss against FLOPs over sizes (Griffin, figure 1a, in kind)."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from ..models import Griffin
from ..shapes import JSON
from .architectures import LABELS, Shape, inner_parameters, sized
from .fit import Recipe, fit, trainer_for
from .page import joined, median, verdict
from .study import Cell, Done, Line, Panel, Place, Study, Table
from .sweep import Sweep, at_best, rate_said
from .texts import crops, losses, novels, segments

ALL = ("griffin", "hawk", "mqa")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """shapes: from the smallest on; ratio: tokens that each is trained on, per parameter.

    rows, length: of a batch; held: rows of validation.
    """

    shapes: tuple[Shape, ...]
    ratio: float
    rows: int
    length: int
    sweep: Sweep
    held: int = 512
    characters: int = 60_000_000
    architectures: tuple[str, ...] = ALL

    def recipe(self, shape: Shape) -> Recipe:
        """Of one size: the same for every architecture."""
        tokens = self.ratio * inner_parameters(sized("griffin", shape))
        steps = max(4, round(tokens / (self.rows * self.length)))
        return Recipe(steps=steps, rows=self.rows, length=self.length)


def _shape(width: int, layers: int, window: int = 64, heads: int = 4) -> Shape:
    return Shape(
        vocab=256, width=width, layers=layers, heads=heads, window=window, mlp_width=3 * width
    )


_ONE = Sweep(rates=(0.004,), factor=4.0, seeds=(0,), extend=0)

SCALES = {
    "tiny": Settings(
        shapes=(_shape(8, 3, 8, 2), _shape(16, 3, 8, 2)),
        ratio=0.05,
        rows=4,
        length=16,
        sweep=_ONE,
        held=4,
        architectures=("griffin", "mqa"),
    ),
    "smoke": Settings(
        shapes=(_shape(32, 3), _shape(64, 3)), ratio=1.0, rows=16, length=64, sweep=_ONE, held=64
    ),
    "cpu": Settings(
        shapes=(_shape(32, 3), _shape(48, 3), _shape(64, 3)),
        ratio=3.0,
        rows=16,
        length=128,
        sweep=Sweep(rates=(0.001, 0.004, 0.016), factor=4.0, seeds=(0,), extend=1),
        characters=20_000_000,
    ),
    "gpu": Settings(
        shapes=(
            _shape(160, 6, 256),
            _shape(256, 6, 256),
            _shape(384, 8, 256, 6),
            _shape(640, 12, 256, 10),
            _shape(1024, 12, 256, 16),
        ),
        ratio=10.0,
        rows=64,
        length=1024,
        sweep=Sweep(rates=(0.0005, 0.001, 0.002, 0.004), factor=2.0, seeds=(0,)),
    ),
}


def _wanted(settings: Settings, name: str, number: int) -> JSON:
    shape = settings.shapes[number]
    return {
        "architecture": name,
        "shape": vars(shape),
        "recipe": asdict(settings.recipe(shape)),
        "size": number,
    }


def plan(settings: Settings, done: Done) -> list[Cell]:
    """Every architecture at every size, the smallest first."""
    cells: list[Cell] = []
    for number in range(len(settings.shapes)):
        for name in settings.architectures:
            label = f"size{number}-{name}"
            cells += settings.sweep.cells(done, label, _wanted(settings, name, number))
    return cells


def measure(settings: Settings, cell: Cell, place: Place) -> JSON:
    """Validation loss, and the FLOPs it took; score: the loss."""
    wanted, recipe = cell.settings, Recipe(**cell.settings["recipe"])
    corpus = novels(place.data, settings.characters, False)
    config = sized(wanted["architecture"], settings.shapes[wanted["size"]])
    draw = crops(corpus.train, recipe.rows, recipe.length)
    trainer = trainer_for(config, draw, recipe, wanted["rate"], wanted["seed"], place)
    trained = fit(trainer, recipe.steps)
    model: Griffin = trainer.model
    chosen = segments(corpus.valid, recipe.length, settings.held)
    inner = inner_parameters(config)
    return {
        "score": round(float(losses(model, chosen, place.device).mean()), 5),
        "parameters": inner,
        "tokens": recipe.tokens,
        "flops": 6 * (inner + config.vocab * config.width) * recipe.tokens,
        "texts": corpus.source,
        **trained,
    }


def line_through(points: Sequence[tuple[float, float]]) -> tuple[float, float, float]:
    """(slope, log of the loss at 1 FLOP, largest residual) of log loss over log FLOPs."""
    x = np.log([flops for flops, _ in points])
    y = np.log([nats for _, nats in points])
    slope, level = np.polyfit(x, y, 1)
    return float(slope), float(level), float(np.abs(y - (slope * x + level)).max())


def _points(settings: Settings, done: Done, name: str) -> list[tuple[float, list[float], int]]:
    """(FLOPs, losses of the seeds, parameters) of each size."""
    found: list[tuple[float, list[float], int]] = []
    for number in range(len(settings.shapes)):
        runs = [f for _, f in at_best(done, settings.sweep, _wanted(settings, name, number))]
        if runs:
            nats = [run["score"] for run in runs]
            found.append((float(runs[0]["flops"]), nats, runs[0]["parameters"]))
    return found


def tables(settings: Settings, done: Done) -> list[Table]:
    """A row for each architecture and size; a line for each architecture."""
    rows: list[list[str]] = []
    lines: list[list[str]] = []
    for name in settings.architectures:
        points = _points(settings, done, name)
        for number, (flops, nats, parameters) in enumerate(points):
            rate = rate_said(done, settings.sweep, _wanted(settings, name, number))
            rows.append([LABELS[name], f"{parameters:,}", f"{flops:.2e}", joined(nats), rate])
        if len(points) > 2:
            slope, _, off = line_through([(flops, min(nats)) for flops, nats, _ in points])
            lines.append([LABELS[name], f"{slope:.4f}", f"{off:.4f}"])
    return [
        Table("Nats a byte", ["", "parameters", "FLOPs", "nats", "rate"], rows),
        Table("Logarithm of the loss over that of FLOPs", ["", "slope", "largest residual"], lines),
    ]


def panels(settings: Settings, done: Done) -> list[Panel]:
    """Loss by FLOPs."""
    lines: list[Line] = []
    for name in settings.architectures:
        points = _points(settings, done, name)
        nats = [median(some) for _, some, _ in points]
        lines.append(Line(name, [flops for flops, _, _ in points], nats))
    return [Panel("Loss against training", "FLOPs", "nats a byte", lines, "xy")]


def verdicts(settings: Settings, done: Done) -> list[str]:
    """Both, for architectures that have all sizes."""
    every = {name: _points(settings, done, name) for name in settings.architectures}
    every = {name: points for name, points in every.items() if len(points) > 2}
    lines = {
        name: line_through([(flops, min(nats)) for flops, nats, _ in points])
        for name, points in every.items()
    }
    said: list[str] = []
    if lines:
        each = ", ".join(f"{LABELS[name]} {off:.4f}" for name, (_, _, off) in lines.items())
        straight = max(off for _, _, off in lines.values()) < 0.01
        said.append(verdict("1, largest residual of the logarithm below 0.01", straight, each))
    if len(lines) == 3:

        def over(name: str) -> list[float]:
            """The line's loss over that of MQA's at each budget of MQA's, in logarithms."""
            (slope, level, _), (other, base, _) = lines[name], lines["mqa"]
            budgets = [np.log(flops) for flops, _, _ in every["mqa"]]
            return [float((slope - other) * at + level - base) for at in budgets]

        griffin, hawk = over("griffin"), over("hawk")
        claims = (
            ("2, Griffin's line at or below MQA's at every budget", griffin, max(griffin) <= 0),
            ("2, Hawk's line crosses or meets MQA's", hawk, min(hawk) <= 0 <= max(hawk)),
        )
        for claim, apart, held in claims:
            each = ", ".join(f"{100 * (np.exp(part) - 1):+.1f} %" for part in apart)
            said.append(verdict(claim, held, f"loss over MQA's, by size: {each}"))
    return said


STUDY = Study(
    title="Scaling: loss against FLOPs",
    question="At equal compute, does Griffin's or Hawk's loss lie below that of attention?",
    setup="""\
Bytes of English novels, every tenth author's held out (without --data the bundled book, which is
said in every cell). Every size of every architecture is trained on the same number of tokens per
parameter, its rate swept. FLOPs are counted as 6 (N + V W) D: N parameters without the embedding,
V W of the head, D tokens; what scans and attention's scores cost besides is left out, as it is in
the paper's count of parameters.""",
    beside="""\
Griffin (2402.19427), figure 1a, 100M to 14B parameters at about 20 tokens each: Griffin below MQA
at every budget; Hawk above it, the gap closing as it grows. A plot without numbers.""",
    limits="""\
Three sizes below a fifth of a million parameters at scale cpu, 3 tokens a parameter where the
paper takes 20: a line through three points. At such sizes the width of the head and the constant
parts of a block weigh as much as what is compared. One seed a point unless said.""",
    scales=SCALES,
    plan=plan,
    measure=measure,
    tables=tables,
    panels=panels,
    verdicts=verdicts,
)
