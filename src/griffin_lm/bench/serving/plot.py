"""Memory against tokens read: a server's beside what a cache that grows would hold."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...pictures import single_plot

MIB = 1 << 20


def draw(figures: Mapping[str, Any], path: Path) -> bool:
    """Writes an SVG; whether a reading was measured. Raises MissingExtra without matplotlib."""
    rows = [row for row in figures["rows"] if row["what"] == "reading"]
    if not rows:
        return False
    (row,) = rows
    tokens = [at / 1e6 for at, _ in row["samples"]]
    a_token = row["growing_cache_bytes"] / row["tokens"] / MIB * 1e6
    with single_plot(path) as axes:
        measured = [memory / MIB for _, memory in row["samples"]]
        axes.plot(tokens, measured, color="#1b6ca8", label="griffin serve, all of its own memory")
        cache = [at * a_token for at in tokens]
        axes.plot(tokens, cache, "--", color="#c0561f", label="a growing cache alone (computed)")
        axes.set_xlabel("tokens read, millions")
        axes.set_ylabel("MiB")
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False, fontsize=8)
    return True
