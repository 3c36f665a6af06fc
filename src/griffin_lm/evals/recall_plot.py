"""Recall against distance, as a picture: each field, and what is said where there was no note."""

from collections.abc import Sequence
from pathlib import Path

from ..pictures import single_plot
from .recall import Cell

STYLES = {"name": ("#1b6ca8", "o-"), "place": ("#c0561f", "s-"), "number": ("#2e8b57", "^-")}


def points(cells: Sequence[Cell]) -> dict[str, list[tuple[int, float]]]:
    """Field -> (distance, share right) with a note; "no note": right without one, all fields."""
    found: dict[str, list[tuple[int, float]]] = {}
    for cell in cells:
        if cell.noted:
            found.setdefault(cell.field, []).append((cell.distance, cell.share))
    for distance in sorted({cell.distance for cell in cells if not cell.noted}):
        some = [cell for cell in cells if cell.distance == distance and not cell.noted]
        share = sum(cell.right for cell in some) / sum(cell.n for cell in some)
        found.setdefault("no note", []).append((distance, share))
    return {name: sorted(places) for name, places in found.items()}


def draw(cells: Sequence[Cell], window: int, path: Path) -> None:
    """Writes an SVG, the same for the same cells; window: of the model's local attention.

    Raises MissingExtra without matplotlib.
    """
    with single_plot(path, height=3.0) as axes:
        for name, places in points(cells).items():
            colour, style = STYLES.get(name, ("#777777", "x:"))
            label = "none, and it says so" if name == "no note" else name
            distances, shares = zip(*places, strict=True)
            axes.plot(distances, shares, style, color=colour, label=label, clip_on=False)
        axes.axvline(window, color="#777777", linewidth=0.8)
        axes.text(window * 1.1, 0.03, "attention's window", fontsize=8, color="#555555")
        axes.set_xscale("log", base=4)
        axes.xaxis.set_major_formatter(lambda at, _: f"{at:,.0f}")
        axes.set_ylim(0, 1.02)
        axes.set_xlabel("tokens of unseen novels since the note")
        axes.set_ylabel("share recalled")
        axes.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0.12, 0.1))
