"""What only changes how a step is computed, and how far training goes another way by it.

Two runs of fledgling's architecture from the same random weights, on the same documents of the
bundled book, that differ in one thing: how far apart do their weights end? In float64 what is left
are sums in another order, so that a mistake would show; in float32 the same, as a run has it.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..inference.resolution import BUNDLED
from ..models import build
from ..text import load_tokenizer
from ..training.batch import Batch
from ..training.blocks import compile_why_not
from ..training.config import TrainConfig
from ..training.trainer import Trainer
from .machine import machine

STEPS = 20
ROWS, LONGEST = 8, 48  # documents of a step, and their most tokens
PACKED = 224  # tokens of a packed row; 4 documents and less fit
TOLERANCE = 1e-9  # of weights in float64
MODEL = "fledgling"
DTYPES = {"float64": torch.float64, "float32": torch.float32}


class Rows:
    """A feed of given batches, one after the other."""

    def __init__(self, batches: Sequence[Batch]) -> None:
        self.left = list(batches)

    def take(self, share: float) -> Batch:
        """The next one."""
        return self.left.pop(0)

    def observe(self, batch: Batch, loss: Tensor, right: Tensor) -> str | None:
        """Nothing."""
        return None

    def to_dict(self) -> dict[str, Any]:
        """Nothing is saved."""
        return {}

    def restore(self, saved: dict[str, Any]) -> None:
        """Nothing is saved."""


@dataclass(frozen=True)
class Way:
    """One way to make the same steps: settings of the run, and its batches."""

    settings: Mapping[str, Any]
    batches: Callable[[], list[Batch]]


@dataclass(frozen=True)
class Pair:
    """Two ways that must lead to the same weights."""

    name: str
    one: Way
    other: Way
    why_not: str | None = None  # it can't be measured here


@dataclass(frozen=True)
class Went:
    """Where a run ended."""

    losses: list[float]
    weights: list[Tensor]


def documents(step: int) -> list[Tensor]:
    """A step's documents: pieces of the bundled book, of 8 to 48 tokens each."""
    text = (BUNDLED["fledgling"] / "book.txt").read_text(encoding="utf-8")[:200_000]
    ids = torch.tensor(load_tokenizer(BUNDLED["fledgling"]).encode(text, bos=False))
    draw = torch.Generator().manual_seed(step)
    lengths = torch.randint(8, LONGEST + 1, (ROWS,), generator=draw).tolist()
    begins = torch.randint(len(ids) - LONGEST, (ROWS,), generator=draw).tolist()
    return [ids[at : at + length] for at, length in zip(begins, lengths, strict=True)]


def batch_of(rows: Sequence[Sequence[Tensor]], length: int, gaps: int = 1) -> Batch:
    """Rows of documents, one after the other, padded at the right; gaps: a token every so many."""
    shape = (len(rows), length)
    tokens, targets = torch.zeros(shape).long(), torch.zeros(shape).long()
    starts, valid, weight = torch.zeros(shape).bool(), torch.zeros(shape).bool(), torch.zeros(shape)
    for row, several in enumerate(rows):
        at = 0
        for document in several:
            places = torch.arange(at, at + gaps * len(document), gaps)
            tokens[row, places], valid[row, places], starts[row, at] = document, True, True
            targets[row, places[:-1]], weight[row, places[:-1]] = document[1:], 1.0
            at += gaps * len(document)
    return Batch(tokens, starts, valid, targets, weight)


def _padded() -> list[Batch]:
    return [batch_of([[d] for d in documents(step)], LONGEST) for step in range(STEPS)]


def _twos() -> list[Batch]:
    return [b.part(slice(i, i + 2), slice(None)) for b in _padded() for i in range(0, ROWS, 2)]


def _packed() -> list[Batch]:
    each = [documents(step) for step in range(STEPS)]
    return [batch_of([found[:4], found[4:]], PACKED) for found in each]


def _spread() -> list[Batch]:
    each = [documents(step) for step in range(STEPS)]
    return [batch_of([[d] for d in found], 2 * LONGEST, gaps=2) for found in each]


def _carried(cut: int) -> list[Batch]:
    """Four endless rows of the book, in batches of so many tokens that go on from one another."""
    text = (BUNDLED["fledgling"] / "book.txt").read_text(encoding="utf-8")[:60_000]
    ids = torch.tensor(load_tokenizer(BUNDLED["fledgling"]).encode(text, bos=False))
    whole = 64 * STEPS
    rows = torch.stack([ids[row * whole : (row + 1) * whole + 1] for row in range(4)])
    starts, ones = torch.zeros(4, cut).bool(), torch.ones(4, cut)
    spans = [slice(at, at + cut) for at in range(0, whole, cut)]
    return [
        Batch(rows[:, s], starts, ones.bool(), rows[:, 1:][:, s], ones, None, None, True)
        for s in spans
    ]


def pairs() -> list[Pair]:
    """Everything that is compared."""
    plain = Way({}, _padded)
    why_not = compile_why_not(torch.device("cpu"))
    return [
        Pair("a batch of 8 = 4 x 2 accumulated", plain, Way({"accumulate": 4}, _twos)),
        Pair("packed documents = padded ones", plain, Way({}, _packed)),
        Pair("padding between tokens = none", plain, Way({}, _spread)),
        Pair("blocks computed twice = once", plain, Way({"recompute": "full"}, _padded)),
        Pair("what is cheap computed twice", plain, Way({"recompute": "selective"}, _padded)),
        Pair("the loss in chunks = at once", plain, Way({"loss_chunk": 37}, _padded)),
        Pair("compiled = eager", plain, Way({"compile": True}, _padded), why_not),
        Pair(
            "segments of a row = batches that carry",
            Way({"segment": 16}, lambda: _carried(64)),
            Way({"accumulate": 4}, lambda: _carried(16)),
        ),
    ]


def went(way: Way, dtype: torch.dtype) -> Went:
    """Where a way leads."""
    base: dict[str, Any] = {"steps": STEPS, "warmup_steps": 4, "rate_seconds": 0.0}
    base |= {"bf16": False, "compile": False}
    config = TrainConfig(model=MODEL, **(base | dict(way.settings)))
    model = build(MODEL, seed=0, dtype=dtype)
    with tempfile.TemporaryDirectory() as out:
        trainer = Trainer(model, Rows(way.batches()), config, Path(out))
        losses = [trainer.step().loss for _ in range(STEPS)]
    return Went(losses, [parameter.detach() for parameter in model.parameters()])


def apart(one: Went, other: Went) -> dict[str, float]:
    """The largest difference of a weight, and of a step's loss relative to the loss."""
    weights = zip(one.weights, other.weights, strict=True)
    losses = zip(one.losses, other.losses, strict=True)
    return {
        "weights": max(float((a - b).abs().max()) for a, b in weights),
        "loss": max(abs(a - b) / abs(a) for a, b in losses),
    }


def measure(
    progress: Callable[[int, int], None] = lambda done, whole: None, command: str = ""
) -> dict[str, Any]:
    """Every pair in every dtype; {"machine", "command", "date", "rows", "moved"}."""
    every, rows = pairs(), list[dict[str, Any]]()
    known: dict[tuple[str, str], Went] = {}
    first = build(MODEL, seed=0, dtype=torch.float64)
    moved = 0.0
    for done, pair in enumerate(every):
        row: dict[str, Any] = {"what": pair.name, "why_not": pair.why_not}
        for name, dtype in DTYPES.items() if pair.why_not is None else ():
            key = (repr(pair.one.settings), name)  # the plain way is the same for most
            if key not in known:
                known[key] = went(pair.one, dtype)
            if name == "float64" and not moved:
                ends = zip(known[key].weights, first.state_dict().values(), strict=True)
                moved = max(float((a - b).abs().max()) for a, b in ends)
            row[name] = apart(known[key], went(pair.other, dtype))
        rows.append(row)
        progress(done + 1, len(every))
    return {
        "machine": machine(),
        "command": command,
        "date": date.today().isoformat(),
        "model": MODEL,
        "steps": STEPS,
        "moved": moved,
        "rows": rows,
    }


def failures(figures: Mapping[str, Any]) -> list[str]:
    """The pairs whose weights are farther apart in float64 than the tolerance."""
    measured = [row for row in figures["rows"] if row["why_not"] is None]
    return [row["what"] for row in measured if not row["float64"]["weights"] <= TOLERANCE]


def section(figures: Mapping[str, Any]) -> str:
    """The table, as Markdown."""
    lines: list[str] = []
    for row in figures["rows"]:
        if row["why_not"] is not None:
            lines.append(f"| {row['what']} | not measured: {row['why_not']} | | | |")
            continue
        cells = [f"{row[name][what]:.1e}" for name in DTYPES for what in ("weights", "loss")]
        lines.append(f"| {row['what']} | {' | '.join(cells)} |")
    broken = failures(figures)
    held = "All hold" if not broken else f"NOT held: {', '.join(broken)}"
    return f"""## The same way, computed otherwise

Two runs of {figures["steps"]} steps of AdamW with {figures["model"]}'s architecture, from the same
random weights on the same documents, that differ in one thing: the largest difference of any weight
in the end, and of any step's loss (relative). In float64 no weight may differ by more than
{TOLERANCE:.0e}. {held}. The weights moved by up to {figures["moved"]:.2f}.

| | weights, float64 | loss | weights, float32 | loss |
|---|---|---|---|---|
{chr(10).join(lines)}

In float32 a gradient that is nearly zero has a sign by chance, which AdamW makes as large as any
other step; hence differences of weights far above the rounding. Segments of a row are not a whole
row: gradients end at their borders, by intention, while the state goes on.
"""
