"""War and Peace by characters, beside the table of 2015 (Karpathy, Johnson and Li)."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from ..models import Griffin
from ..shapes import JSON
from .architectures import LABELS, Shape, inner_parameters, sized
from .fit import Recipe, fit, trainer_for
from .page import joined, median, verdict
from .study import Cell, Done, Line, Panel, Place, Study, Table
from .sweep import Sweep, at_best, rate_said
from .texts import SYMBOLS, characters, crops, losses, segments

ALL = ("griffin", "hawk", "lru", "gru", "mamba", "mqa", "local")
FEW = ("griffin", "hawk", "lru", "gru", "mamba", "mqa")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """swept: steps of the sweep; recipe: of the runs that count.

    looks: how often the validation loss is taken; rows: of each such look and of the test.
    lanes: in which the test is read with the state carried.
    """

    shape: Shape
    swept: Recipe
    recipe: Recipe
    sweep: Sweep
    looks: int = 8
    rows: int = 1024
    lanes: int = 32
    architectures: tuple[str, ...] = FEW


_CPU = Shape(vocab=SYMBOLS, width=64, layers=3, heads=4, window=64, mlp_width=128)
_GPU = Shape(vocab=SYMBOLS, width=512, layers=6, heads=8, window=256, mlp_width=1536)
_TINY = Shape(vocab=SYMBOLS, width=16, layers=3, heads=2, window=8, mlp_width=32)
_ONE = Sweep(rates=(0.004,), factor=4.0, seeds=(0,), extend=0)

SCALES = {
    "tiny": Settings(
        shape=_TINY,
        swept=Recipe(steps=3, rows=4, length=16),
        recipe=Recipe(steps=4, rows=4, length=16),
        sweep=_ONE,
        looks=2,
        rows=4,
        lanes=2,
        architectures=("griffin", "mqa"),
    ),
    "smoke": Settings(
        shape=Shape(vocab=SYMBOLS, width=64, layers=3, heads=4, window=32, mlp_width=128),
        swept=Recipe(steps=20, rows=16, length=64),
        recipe=Recipe(steps=60, rows=16, length=64),
        sweep=_ONE,
        looks=3,
        rows=64,
        lanes=16,
        architectures=ALL,
    ),
    "cpu": Settings(
        shape=_CPU,
        swept=Recipe(steps=120, rows=32, length=128),
        recipe=Recipe(steps=320, rows=32, length=128),
        sweep=Sweep(rates=(0.001, 0.004, 0.016), factor=4.0, seeds=(0, 1)),
        looks=5,
        rows=512,
    ),
    "gpu": Settings(
        shape=_GPU,
        swept=Recipe(steps=1000, rows=64, length=256),
        recipe=Recipe(steps=10_000, rows=64, length=256, warmup=200),
        sweep=Sweep(rates=(0.0005, 0.001, 0.002, 0.004), factor=2.0, seeds=(0, 1, 2)),
        looks=20,
        architectures=ALL,
    ),
}


def _swept(settings: Settings, name: str) -> JSON:
    return {
        "architecture": name,
        "shape": vars(settings.shape),
        "recipe": asdict(settings.swept),
        "stage": "sweep",
    }


def _final(settings: Settings) -> JSON:
    return {"recipe": asdict(settings.recipe), "stage": "final"}


def plan(settings: Settings, done: Done) -> list[Cell]:
    """Short runs at every rate, then runs in full at the best, a seed after the other."""
    cells: list[Cell] = []
    for name in settings.architectures:
        cells += settings.sweep.cells(done, name, _swept(settings, name), _final(settings))
    return sorted(
        cells, key=lambda cell: (cell.settings["seed"], cell.settings["stage"] == "final")
    )


def measure(settings: Settings, cell: Cell, place: Place) -> JSON:
    """Nats a character; score: of the validation part at the end, of a sweep nothing else."""
    wanted = cell.settings
    sweeps = wanted["stage"] == "sweep"
    recipe = settings.swept if sweeps else settings.recipe
    corpus = characters(place.data)
    config = sized(wanted["architecture"], settings.shape)
    trainer = trainer_for(
        config,
        crops(corpus.train, recipe.rows, recipe.length),
        recipe,
        wanted["rate"],
        wanted["seed"],
        place,
    )
    chosen = segments(corpus.valid, recipe.length, settings.rows)
    seen: list[tuple[int, float]] = []

    def look(model: Griffin, step: int) -> bool:
        seen.append((step, round(float(losses(model, chosen, place.device).mean()), 4)))
        return False

    every = 0 if sweeps else max(1, recipe.steps // settings.looks)
    trained = fit(trainer, recipe.steps, every, look)
    model: Griffin = trainer.model
    figures: JSON = {
        "score": float(losses(model, chosen, place.device).mean()),
        "passes": round(recipe.tokens / len(corpus.train), 2),
        "parameters": inner_parameters(config),
        "texts": corpus.source,
        **trained,
    }
    if sweeps:
        return figures
    test = losses(model, segments(corpus.test, recipe.length, settings.rows), place.device)
    figures |= {
        "test": round(float(test.mean()), 4),
        "test_second_half": round(float(test[:, recipe.length // 2 :].mean()), 4),
        "valid_by_step": seen,
    }
    if not model.empty_state(1).bytes_per_token:
        whole = corpus.test[0]
        lanes = segments([whole], len(whole) // settings.lanes - 1, settings.lanes)
        figures["test_carried"] = round(float(losses(model, lanes, place.device).mean()), 4)
    return figures


def _runs(settings: Settings, done: Done, name: str) -> Sequence[JSON]:
    found = at_best(done, settings.sweep, _swept(settings, name), _final(settings))
    return [figures for _, figures in found]


def tables(settings: Settings, done: Done) -> list[Table]:
    """Test and validation loss of every architecture."""
    rows: list[list[str]] = []
    for name in settings.architectures:
        if runs := _runs(settings, done, name):
            carried = [run["test_carried"] for run in runs if "test_carried" in run]
            rows.append(
                [
                    LABELS[name],
                    joined([run["test"] for run in runs]),
                    joined([run["test_second_half"] for run in runs]),
                    joined(carried),
                    joined([run["score"] for run in runs]),
                    rate_said(done, settings.sweep, _swept(settings, name)),
                    str(len(runs)),
                    f"{runs[0]['passes']:.2f}",
                    f"{runs[0]['parameters']:,}",
                ]
            )
    head = [
        "",
        "test, in rows",
        "their second halves",
        "test, carried",
        "validation",
        "rate",
        "seeds",
        "passes",
        "parameters",
    ]
    return [Table("Nats a character", head, rows)]


def panels(settings: Settings, done: Done) -> list[Panel]:
    """Validation loss by step."""
    lines: list[Line] = []
    for name in settings.architectures:
        if runs := _runs(settings, done, name):
            steps = [step for step, _ in runs[0]["valid_by_step"]]
            every = [[found for _, found in run["valid_by_step"]] for run in runs]
            by_step = list(zip(*every, strict=True))
            middle = [median(some) for some in by_step]
            lines.append(Line(name, steps, middle, [(min(s), max(s)) for s in by_step]))
    return [Panel("Validation, in rows", "steps", "nats a character", lines, "x")]


BEST_OF_2015 = (1.170, 1.201, 1.077)  # GRU-512 of 1, 2, 3 layers


def verdicts(settings: Settings, done: Done) -> list[str]:
    """Both hypotheses; the first speaks of runs of half a pass at least."""
    runs = {name: _runs(settings, done, name) for name in settings.architectures}
    test = {name: median([run["test"] for run in some]) for name, some in runs.items() if some}
    said: list[str] = []
    few = [name for name in ("griffin", "hawk", "mqa") if name in test]
    if len(few) == 3 and min(run["passes"] for run in runs["griffin"]) >= 0.5:
        apart = max(test[name] for name in few) - min(test[name] for name in few)
        each = ", ".join(f"{LABELS[name]} {test[name]:.3f}" for name in few)
        claim = "1, Griffin, Hawk and MQA within 0.05 nats of one another"
        said.append(verdict(claim, apart <= 0.05, f"{each}; apart {apart:.3f}"))
        best = min(test.values())
        if "gru" not in test:
            said.append(verdict("1, GRU within 0.1 of the best", None, "GRU was not run in full"))
        else:
            figures = f"{test['gru']:.3f}, the best {best:.3f}"
            said.append(
                verdict("1, GRU within 0.1 of the best", test["gru"] <= best + 0.1, figures)
            )
        if "lru" in test:
            figures = f"{test['lru']:.3f} and {test['hawk']:.3f}"
            said.append(verdict("1, LRU behind Hawk", test["lru"] > test["hawk"], figures))
    if test:
        found = [
            (run[key], LABELS[name], key)
            for name, some in runs.items()
            for run in some
            for key in ("test", "test_carried")
            if key in run
        ]
        nats, name, key = min(found)
        how = "carried" if key == "test_carried" else "in rows"
        claim = "2, none reaches a GRU-512 of 2015 (1.170, 1.201, 1.077)"
        said.append(verdict(claim, nats > max(BEST_OF_2015), f"best: {name} {how}, {nats:.3f}"))
    return said


STUDY = Study(
    title="War and Peace, by characters",
    question="At equal parameters and data, which architecture predicts the next character best?",
    setup="""\
War and Peace in the form of the benchmark of 2015 (3,258,246 bytes, 87 symbols), the first 80 %
to train on, the next 10 % to choose by, the last 10 % to test on; without --data the bundled book
in its place, which is said in every cell. Rows from random places, the same for all. *In rows*:
the test cut into rows of the training length, each read from an empty state. *Their second
halves*: the same, only where half a row was read before. *Carried*: the test in a few lanes, the
state carried all along, as in 2015; global attention can't, since its cache would hold it all.""",
    beside="""\
Karpathy, Johnson and Li 2015 (1506.02078), test nats a character, 1 / 2 / 3 layers, recalled and
not read again: LSTM-128 1.277 / 1.227 / 1.279, LSTM-256 1.189 / 1.137 / 1.141, LSTM-512 1.161 /
1.092 / 1.082; GRU-256 1.198 / 1.164 / 1.138, GRU-512 1.170 / 1.201 / 1.077; RNN-256 1.342 / 1.256
/ 1.239. Those ran up to 50 passes over the text, with dropout chosen by validation.""",
    limits="""\
At scale cpu a model has a tenth of a million parameters and sees half the text: what is compared
is how fast it learns, not where it would end, and 2015's figures are of other sizes and far more
passes. Rates are chosen by runs of a third of the length, which may favour high ones. Rows begin
with an empty state in training. The GRU stands in Griffin's recurrent block, with a conv before
it and an MLP after it, so it is not 2015's. One text, one language.""",
    scales=SCALES,
    plan=plan,
    measure=measure,
    tables=tables,
    panels=panels,
    verdicts=verdicts,
)
