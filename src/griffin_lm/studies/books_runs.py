"""The runs of `books`: sizes, training, and what is read afterwards."""

from dataclasses import asdict, dataclass, replace

import numpy as np

from ..models import Griffin
from ..shapes import JSON
from .architectures import Shape, inner_parameters, sized
from .fit import Recipe, fit, trainer_for
from .study import Cell, Done, Place
from .sweep import Sweep
from .texts import by_power, crops, losses, novels, segments

VOCAB = 2048  # fledgling's pieces
ALL = ("griffin", "hawk", "lru", "gru", "mamba", "mqa", "local")
FEW = ("griffin", "hawk", "mqa", "local")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """swept: of the sweep, at the first of `lengths`; steps: tokens a step / length rows, at each.

    lengths: that are trained at, at equal tokens: `tokens` of them, `batch` a step. windows: of
    the ablation, at the first length. read: tokens of a row that is read; rows: so many;
    farthest: what global attention reads. characters: of novels to train on.
    """

    shape: Shape
    sweep: Sweep
    swept_tokens: int
    tokens: int
    batch: int
    lengths: tuple[int, ...]
    windows: tuple[int, ...]
    read: int
    rows: int
    farthest: int
    characters: int = 60_000_000
    architectures: tuple[str, ...] = FEW

    def recipe(self, length: int, tokens: int) -> Recipe:
        """So many tokens in rows of this length."""
        rows = max(1, self.batch // length)
        return Recipe(steps=max(2, tokens // (rows * length)), rows=rows, length=length)


_ONE = Sweep(rates=(0.004,), factor=4.0, seeds=(0,), extend=0)

SCALES = {
    "tiny": Settings(
        shape=Shape(vocab=VOCAB, width=16, layers=3, heads=2, window=8, mlp_width=32),
        sweep=_ONE,
        swept_tokens=64,
        tokens=128,
        batch=64,
        lengths=(16, 32),
        windows=(4,),
        read=64,
        rows=2,
        farthest=64,
        architectures=("griffin", "mqa"),
    ),
    "smoke": Settings(
        shape=Shape(vocab=VOCAB, width=64, layers=3, heads=4, window=32, mlp_width=128),
        sweep=_ONE,
        swept_tokens=16_384,
        tokens=65_536,
        batch=2048,
        lengths=(64, 256),
        windows=(8,),
        read=1024,
        rows=4,
        farthest=1024,
        architectures=("griffin", "hawk", "mqa"),
    ),
    "cpu": Settings(
        shape=Shape(vocab=VOCAB, width=64, layers=3, heads=4, window=64, mlp_width=128),
        sweep=Sweep(rates=(0.001, 0.004, 0.016), factor=4.0, seeds=(0,)),
        swept_tokens=60_000,
        tokens=300_000,
        batch=2048,
        lengths=(256, 1024),
        windows=(16, 256),
        read=32_768,
        rows=4,
        farthest=8192,
        characters=12_000_000,
    ),
    "gpu": Settings(
        shape=Shape(vocab=VOCAB, width=384, layers=6, heads=6, window=128, mlp_width=1152),
        sweep=Sweep(rates=(0.0005, 0.001, 0.002, 0.004), factor=2.0, seeds=(0, 1, 2)),
        swept_tokens=4_000_000,
        tokens=40_000_000,
        batch=32_768,
        lengths=(256, 1024),
        windows=(16, 32, 64, 256, 512),
        read=32_768,
        rows=48,
        farthest=32_768,
        architectures=ALL,
    ),
}


def swept_settings(settings: Settings, name: str) -> JSON:
    """Of an architecture's sweep, but for rate and seed."""
    return {
        "architecture": name,
        "shape": vars(settings.shape),
        "recipe": asdict(settings.recipe(settings.lengths[0], settings.swept_tokens)),
        "stage": "sweep",
    }


def final_settings(settings: Settings, name: str, length: int, window: int) -> JSON:
    """Of the runs that count, but for rate and seed."""
    return {
        "architecture": name,
        "shape": vars(settings.shape),
        "recipe": asdict(settings.recipe(length, settings.tokens)),
        "length": length,
        "window": window,
        "stage": "final",
    }


def plan(settings: Settings, done: Done) -> list[Cell]:
    """A sweep at the first length; then both lengths, then windows, all at the rate it found."""
    cells: list[Cell] = []
    later: list[Cell] = []
    for name in settings.architectures:
        swept = swept_settings(settings, name)
        cells += [
            cell
            for cell in settings.sweep.cells(done, name, swept)
            if cell.settings["seed"] == settings.sweep.seeds[0]
        ]
        rate = settings.sweep.best(done, swept)
        if rate is None or any(cell.name not in done for cell in cells):
            continue
        own = settings.shape.window
        shapes = [(length, own) for length in settings.lengths]
        if name in ("griffin", "local"):
            shapes += [(settings.lengths[0], window) for window in settings.windows]
        for seed in settings.sweep.seeds:
            for length, window in shapes:
                wanted = final_settings(settings, name, length, window) | {
                    "rate": rate,
                    "seed": seed,
                }
                label = f"{name}-length{length}-window{window}-seed{seed}"
                (cells if window == own else later).append(Cell(label, wanted))
    return cells + later


def measure(settings: Settings, cell: Cell, place: Place) -> JSON:
    """Nats a token by position, and on bigrams that the row had before; score: by validation."""
    wanted = cell.settings
    recipe = Recipe(**wanted["recipe"])
    corpus = novels(place.data, settings.characters, True)
    shape = replace(settings.shape, window=wanted.get("window", settings.shape.window))
    config = sized(wanted["architecture"], shape)
    draw = crops(corpus.train, recipe.rows, recipe.length)
    trainer = trainer_for(config, draw, recipe, wanted["rate"], wanted["seed"], place)
    trained = fit(trainer, recipe.steps)
    model: Griffin = trainer.model
    chosen = segments(corpus.valid, settings.lengths[0], 16 * settings.rows)
    figures: JSON = {
        "score": float(losses(model, chosen, place.device).mean()),
        "parameters": inner_parameters(config),
        "texts": corpus.source,
        **trained,
    }
    if wanted["stage"] == "final":
        grows = bool(model.empty_state(1).bytes_per_token)
        length = min(settings.read, settings.farthest) if grows else settings.read
        whole = segments(corpus.test, settings.read, settings.rows)[:, : length + 1]
        each = np.concatenate([losses(model, row[None], place.device) for row in whole])
        near = slice(0, settings.lengths[0])
        again = repeated(whole)
        figures |= {
            "rows": len(whole),
            "by_position": by_power(each),
            "repeated": _slices(each, again),
            "repeated_near": _slices(each[:, near], again[:, near]),
        }
    return figures


def repeated(rows: np.ndarray) -> np.ndarray:
    """(rows, length) from (rows, length + 1): whether this token followed the one before already.

    Zoology's slice (Arora et al. 2023, section 3.1): what recall in the context can help with.
    """
    found = np.zeros((rows.shape[0], rows.shape[1] - 1), dtype=bool)
    for row, tokens in enumerate(rows):
        pairs = tokens[:-1].astype(np.int64) * (int(rows.max()) + 1) + tokens[1:]
        first = np.unique(pairs, return_index=True)[1]
        found[row] = True
        found[row, first] = False
    return found


def _slices(each: np.ndarray, again: np.ndarray) -> JSON:
    return {
        "seen": round(float(each[again].mean()), 4) if again.any() else None,
        "new": round(float(each[~again].mean()), 4),
        "share_seen": round(float(again.mean()), 4),
    }
