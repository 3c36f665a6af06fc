"""Plots of studies: PNG and SVG, told apart in grey too, by markers and dashes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..pictures import empty_figure
from .architectures import LABELS
from .study import Line, Panel

# Okabe and Ito's colours, which the colour-blind tell apart; (on, off, ...) in points
STYLES: dict[str, tuple[str, str, tuple[int, ...]]] = {
    "griffin": ("#0072B2", "o", ()),
    "hawk": ("#D55E00", "s", (6, 2)),
    "lru": ("#CC79A7", "^", (2, 2)),
    "gru": ("#009E73", "v", (6, 2, 1, 2)),
    "mamba": ("#E69F00", "D", (4, 1, 1, 1, 1, 1)),
    "mqa": ("#000000", "x", ()),
    "mha": ("#666666", "P", (3, 1)),
    "llama": ("#56B4E9", "*", (8, 2, 2, 2)),
    "local": ("#999999", "<", (1, 1)),
}
OTHERS = tuple(STYLES.values())  # of lines that are no architectures, in turn
PNG_DPI = 144


def draw(panels: Sequence[Panel], path: Path) -> bool:
    """Writes `path` with the endings .svg and .png; whether there was anything to draw.

    Raises MissingExtra without matplotlib. The same figures give the same files.
    """
    panels = [panel for panel in panels if any(len(line.x) for line in panel.lines)]
    if not panels:
        return False
    columns = min(2, len(panels))
    down = -(-len(panels) // columns)
    with empty_figure(5.4 * columns, 3.7 * down) as figure:
        grid = figure.subplots(down, columns, squeeze=False).flatten()
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
        for panel, axes in zip(panels, grid, strict=False):
            _draw_panel(panel, axes)
        drawn: dict[str, Any] = {}
        for axes in grid:
            drawn |= {line.get_label(): line for line in axes.get_lines()}
        figure.legend(
            drawn.values(),
            drawn.keys(),
            loc="outside lower center",
            ncols=min(len(drawn), 5 * columns),
            frameon=False,
            fontsize=8,
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
        figure.savefig(path.with_suffix(".png"), dpi=PNG_DPI, metadata={"Software": None})
    return True


def style_of(line: Line, number: int) -> tuple[str, str, tuple[int, ...]]:
    """Colour, marker and dashes: an architecture's own, or one of OTHERS."""
    return STYLES.get(line.name) or OTHERS[number % len(OTHERS)]


def _draw_panel(panel: Panel, axes: Any) -> None:
    for number, line in enumerate(panel.lines):
        if not len(line.x):
            continue
        colour, marker, dashes = style_of(line, number)
        (drawn,) = axes.plot(
            line.x,
            line.y,
            color=colour,
            marker=marker,
            markersize=4.5,
            linewidth=1.4,
            label=LABELS.get(line.name, line.name),
        )
        if dashes:
            drawn.set_dashes(dashes)
        if line.spread:
            low, high = zip(*line.spread, strict=True)
            axes.fill_between(line.x, low, high, color=colour, alpha=0.15, linewidth=0)
    if "x" in panel.log:
        axes.set_xscale("log", base=2)
    if "y" in panel.log:
        axes.set_yscale("log")
    else:
        axes.margins(y=0.08)
    axes.set_title(panel.title, fontsize=10)
    axes.set_xlabel(panel.x)
    axes.set_ylabel(panel.y)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
