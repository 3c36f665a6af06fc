"""Tokens a second against context: a state of fixed size beside a cache that grows."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...pictures import single_plot

COLOURS = {"bf16": "#1b6ca8", "int8": "#2e8b57", "int4": "#c0561f"}


def curves(figures: Mapping[str, Any]) -> dict[tuple[str, str], list[tuple[int, float]]]:
    """(who, weights) -> (context, tokens a second) at batch 1, where two or more were measured."""
    found: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for row in figures["rows"]:
        if row["what"] == "decode" and row["batch"] == 1:
            place = (row["context"], row["tokens_per_s"])
            found.setdefault((row["who"], row["weights"]), []).append(place)
    return {key: sorted(places) for key, places in found.items() if len(places) > 1}


def draw(figures: Mapping[str, Any] | None, path: Path) -> bool:
    """Writes an SVG; whether there was anything to draw. Raises MissingExtra without matplotlib."""
    lines = curves(figures) if figures is not None else {}
    if not lines:
        return False
    with single_plot(path) as axes:
        for (who, weights), places in lines.items():
            axes.plot(
                [context / 1024 for context, _ in places],
                [speed for _, speed in places],
                "o-" if who == "griffin" else "s--",
                color=COLOURS.get(weights, "grey"),
                label=f"{who}, {weights}",
            )
        axes.set_xlabel("context, thousands (1024) of tokens")
        axes.set_ylabel("tokens a second, batch 1")
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False, fontsize=8)
    return True
