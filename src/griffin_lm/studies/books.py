"""Loss by position on novels never seen, further than was trained (Griffin, 6.1, app. E and G)."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from ..models import Griffin
from ..shapes import JSON
from .architectures import LABELS, Shape, inner_parameters, sized
from .fit import Recipe, fit, trainer_for
from .page import joined, median, verdict
from .study import Cell, Done, Line, Panel, Place, Study, Table, of_kind
from .sweep import Sweep, rate_said
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


def _swept(settings: Settings, name: str) -> JSON:
    return {
        "architecture": name,
        "shape": vars(settings.shape),
        "recipe": asdict(settings.recipe(settings.lengths[0], settings.swept_tokens)),
        "stage": "sweep",
    }


def _wanted(settings: Settings, name: str, length: int, window: int) -> JSON:
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
        swept = _swept(settings, name)
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
                wanted = _wanted(settings, name, length, window) | {"rate": rate, "seed": seed}
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
    trainer = trainer_for(config, draw, recipe, wanted["rate"], wanted["seed"], place.device)
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


def _runs(settings: Settings, done: Done, name: str, length: int, window: int) -> Sequence[JSON]:
    return [figures for _, figures in of_kind(done, **_wanted(settings, name, length, window))]


def tables(settings: Settings, done: Done) -> list[Table]:
    """By position, by slice, by window."""
    own, near = settings.shape.window, settings.lengths[0]
    places = [2**k for k in range(4, settings.read.bit_length(), 1)]
    by_place: list[list[str]] = []
    slices: list[list[str]] = []
    windows: list[list[str]] = []
    for name in settings.architectures:
        for length in settings.lengths:
            runs = _runs(settings, done, name, length, own)
            if not runs:
                continue
            each = [[r["by_position"].get(str(p)) for r in runs] for p in places]
            figures = [joined([v for v in some if v is not None]) for some in each]
            by_place.append([f"{LABELS[name]}, {length}", *figures])
            slices.append(
                [
                    f"{LABELS[name]}, {length}",
                    *(
                        joined([r[part][key] for r in runs if r[part][key] is not None])
                        for part in ("repeated_near", "repeated")
                        for key in ("seen", "new")
                    ),
                    rate_said(done, settings.sweep, _swept(settings, name)),
                    f"{runs[0]['parameters']:,}",
                ]
            )
        if name in ("griffin", "local"):
            row = [_runs(settings, done, name, near, w) for w in (own, *settings.windows)]
            if any(row):
                windows.append(
                    [LABELS[name], *(joined([r["score"] for r in some]) for some in row)]
                )
    head = [
        "",
        f"seen, to {near}",
        f"new, to {near}",
        "seen, all",
        "new, all",
        "rate",
        "parameters",
    ]
    return [
        Table(
            "Nats a token from position 2^k on, by training length",
            ["", *map(str, places)],
            by_place,
        ),
        Table("Bigrams that the row has had before, and others", head, slices),
        Table(
            f"Validation at {near} tokens by window",
            ["", *(str(w) for w in (own, *settings.windows))],
            windows,
        ),
    ]


def panels(settings: Settings, done: Done) -> list[Panel]:
    """Loss by position, a panel for each training length."""
    made: list[Panel] = []
    for length in settings.lengths:
        lines: list[Line] = []
        for name in settings.architectures:
            if runs := _runs(settings, done, name, length, settings.shape.window):
                places = [p for p in runs[0]["by_position"] if int(p) >= 8]
                every = [[run["by_position"][p] for run in runs] for p in places]
                middle = [sorted(some)[len(some) // 2] for some in every]
                spread = [(min(some), max(some)) for some in every]
                lines.append(Line(name, [int(p) for p in places], middle, spread))
        made.append(Panel(f"Trained at {length}", "position, from 2^k on", "nats a token", lines))
    return made


def _between(runs: Sequence[JSON], low: int, high: int) -> float:
    """Median over seeds of the mean nats at positions from `low` up to `high`, powers of two."""
    means: list[float] = []
    for run in runs:
        parts = [(int(p), nats) for p, nats in run["by_position"].items() if low <= int(p) < high]
        means.append(sum(p * nats for p, nats in parts) / sum(p for p, _ in parts))
    return median(means)


def verdicts(settings: Settings, done: Done) -> list[str]:
    """All four, where the runs that decide them are there."""
    own, (near, *later) = settings.shape.window, settings.lengths
    short = {name: _runs(settings, done, name, near, own) for name in settings.architectures}
    long = {name: _runs(settings, done, name, later[-1], own) for name in short} if later else {}
    far = 8192
    if near != 256 or settings.read < far or not all(short[name] for name in ("griffin", "hawk")):
        return []
    said: list[str] = []
    for name, least, most in (("griffin", -9.0, 0.02), ("hawk", -9.0, 0.02), ("mqa", 0.3, 99.0)):
        if short.get(name):
            before, after = (_between(short[name], *p) for p in ((128, 256), (1024, far)))
            words = f"at most {most}" if name != "mqa" else f"more than {least}"
            said.append(
                verdict(
                    f"1, {LABELS[name]} trained at 256, positions 1,024 to 8,191 over 128 to 255, "
                    f"{words}",
                    least < after - before <= most,
                    f"{after - before:+.3f}: {before:.3f} and {after:.3f}",
                )
            )
    both = [name for name in short if short[name] and long.get(name)]
    if both:
        gain = {n: _between(short[n], 1024, far) - _between(long[n], 1024, far) for n in both}
        loss = {n: _between(long[n], 1, 256) - _between(short[n], 1, 256) for n in both}
        for claim, found, held in (
            ("2, trained at 1,024 better at 1,024 to 8,191", gain, min(gain.values()) > 0),
            (
                "2, trained at 1,024 worse by 0 to 0.05 below 256",
                loss,
                all(0 <= value <= 0.05 for value in loss.values()),
            ),
        ):
            each = ", ".join(f"{LABELS[name]} {value:+.3f}" for name, value in found.items())
            said.append(verdict(claim, held, each))
    seen, new = (
        median([r["repeated"][key] for r in short["hawk"]])
        - median([r["repeated"][key] for r in short["griffin"]])
        for key in ("seen", "new")
    )
    claim = "3, Hawk's loss over Griffin's, on bigrams seen before more than on others"
    said.append(verdict(claim, seen > new, f"{seen:+.3f} and {new:+.3f}"))
    moved: dict[str, float] = {}
    for name in ("griffin", "local"):
        each = [_runs(settings, done, name, near, window) for window in (16, 256)]
        if all(each):
            first, last = (median([run["score"] for run in some]) for some in each)
            moved[name] = abs(last - first)
    if len(moved) == 2:
        claim = (
            "4, from window 16 to 256 Griffin moves by less than 0.03, local attention twice that"
        )
        held = moved["griffin"] < 0.03 and moved["local"] > 2 * moved["griffin"]
        said.append(verdict(claim, held, f"{moved['griffin']:.3f} and {moved['local']:.3f}"))
    return said


STUDY = Study(
    title="Books: loss by position",
    question="Does a model get better, or at least not worse, past the length it was trained at?",
    setup="""\
English novels (ELTeC-eng) in fledgling's vocabulary of 2,048 pieces, every tenth author's books
held out; without --data the bundled book, its last tenths held out, which is said in every cell.
Every architecture is trained at two lengths on equally many tokens, rates swept at the shorter
one, then reads held-out novels from their beginnings on, the state carried, and the loss is taken
by position. *Seen*: tokens that followed the same token earlier in the row, where recall can help
(Zoology's slice); *new*: the others. *By window*: attention windows of Griffin and of local
attention alone.""",
    beside="""\
- Griffin (2402.19427), figure 5 and appendix G, 1B models: Hawk and Griffin trained at 2,048 go
  on improving to at least four times that; MQA with rotary positions or none does not. Trained at
  8,192 they are better from 8,192 on and slightly worse before. Curves without numbers.
- Appendix E, 400M: Griffin with a window of 1,024 is below global MQA at 2,048, 4,096 and 8,192;
  MQA with local windows is clearly worse than both. Losses between 2.50 and 2.66.
- Zoology (2312.04927), table 1, 355M, perplexity on repeated bigrams / others: attention 1.98 /
  10.62, RWKV 3.82 / 10.51, H3 3.83 / 10.75, Hyena 4.81 / 11.00.""",
    limits="""\
A tenth of a million parameters and 0.3 million tokens at scale cpu: the state is worth little to
such a model yet, so a flat curve shows that nothing breaks, not that much is remembered. One
seed. Four rows read far: neighbouring points of a curve share their texts, other texts
would move all of them together. Rotary positions without any of the cures there are for them.""",
    scales=SCALES,
    plan=plan,
    measure=measure,
    tables=tables,
    panels=panels,
    verdicts=verdicts,
)
