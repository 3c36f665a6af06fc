"""What a study is: a question, cells to measure, and how they become tables and plots.

A study is one file that ends in `STUDY = Study(...)`, and one row in registry.py. `plan` is asked
again after every cell, with all that is finished, so a sweep can go on from what it found;
`measure` makes one cell's figures, which must depend on its settings alone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..errors import InputError
from ..inference.loading import computes_in_bfloat16
from ..shapes import JSON

SCALES = ("smoke", "cpu", "gpu")
TINY = "tiny"  # of the tests: seconds
PRODUCTS = ("auto", "bfloat16", "float32")


class Cell(NamedTuple):
    """One measurement. name: of its file, unique in a study and scale; settings: plain values.

    A finished cell whose settings are not these any more is measured again.
    """

    name: str
    settings: JSON


Done = Mapping[str, JSON]
"""Finished cells by name: {"settings", "result"} or, where it failed, {"settings", "failed"}."""


class Place(NamedTuple):
    """Where a cell is measured. data: a folder of texts, None: only the bundled book is at hand.

    products: what models multiply in while they are trained; "auto": bfloat16 where the device
    does so in hardware. Cells that are to be laid side by side need the same, on whatever machine.
    """

    device: torch.device
    data: Path | None
    say: Callable[[str], None]
    products: str = "auto"

    @property
    def bf16(self) -> bool:
        """Whether training multiplies in bfloat16. Raises InputError for none of PRODUCTS."""
        if self.products not in PRODUCTS:
            raise InputError(f"products {self.products!r} is none of: {', '.join(PRODUCTS)}")
        if self.products == "auto":
            return computes_in_bfloat16(self.device)
        return self.products == "bfloat16"


class Table(NamedTuple):
    """Rows under a heading; the first column is text, the others are figures."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


class Line(NamedTuple):
    """One curve. name: an architecture, or a label of its own; spread: low and high at each x."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    spread: Sequence[tuple[float, float]] = ()


class Panel(NamedTuple):
    """One plot of several curves; log: which axes are logarithmic, such as "xy"."""

    title: str
    x: str
    y: str
    lines: Sequence[Line]
    log: str = "x"


@dataclass(frozen=True, kw_only=True)
class Study:
    """A question and how it is answered.

    title: of its page. question: in a sentence. setup: what is done, in Markdown. beside: published
    figures to lay ours beside, in Markdown. limits: what it does not show.
    scales: settings of each of SCALES, and of TINY, of a kind of the study's own.
    plan: the cells, in order of worth; asked again after each. measure: a cell's figures.
    tables, panels: of finished cells; they must bear any that are missing or have failed.
    verdicts: lines that hold the finished cells against the hypotheses, figures in them.
    """

    title: str
    question: str
    setup: str
    beside: str
    limits: str
    scales: Mapping[str, Any]
    plan: Callable[[Any, Done], Sequence[Cell]]
    measure: Callable[[Any, Cell, Place], JSON]
    tables: Callable[[Any, Done], Sequence[Table]]
    panels: Callable[[Any, Done], Sequence[Panel]]
    verdicts: Callable[[Any, Done], Sequence[str]] = lambda settings, done: ()


def results(done: Done) -> dict[str, JSON]:
    """Figures of the cells that did not fail, by name."""
    return {name: record["result"] for name, record in done.items() if "result" in record}


def of_kind(done: Done, **wanted: object) -> list[tuple[JSON, JSON]]:
    """(settings, figures) of the cells that did not fail and have these settings, by name."""
    found: list[tuple[JSON, JSON]] = []
    for _, record in sorted(done.items()):
        settings = record["settings"]
        if "result" in record and all(settings.get(key) == value for key, value in wanted.items()):
            found.append((settings, record["result"]))
    return found
