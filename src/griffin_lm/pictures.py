"""Plots by matplotlib, which is imported when one is drawn; the same figures give the same file."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import MissingExtra


@contextmanager
def empty_figure(width: float, height: float) -> Generator[Any]:
    """A matplotlib Figure of so many inches, to be drawn on and saved while this lasts.

    Raises MissingExtra without matplotlib.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("matplotlib", "plots", "drawing") from error
    with matplotlib.rc_context({"svg.hashsalt": "griffin", "svg.fonttype": "none"}):
        yield Figure(figsize=(width, height), layout="constrained")


@contextmanager
def single_plot(path: Path, height: float = 3.6) -> Generator[Any]:
    """Axes to draw on, written to `path` as an SVG in the end. Raises as `empty_figure`."""
    with empty_figure(6.4, height) as figure:
        axes = figure.subplots()
        yield axes
        axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(path, format="svg", metadata={"Date": None})
