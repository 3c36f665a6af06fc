"""The three measurements as `griffin bench` runs them, and the figures that they write."""

import json
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from ...errors import DataError, InputError
from ...ops import native
from ...shapes import JSON
from ..machine import machine
from . import decode as decoding
from . import prefill as prefilling
from . import rounds
from . import scan as scanning
from .contenders import NAMES, Measured, Options, require_peers
from .decode import Decode
from .prefill import Prefill
from .scan import Scan

__all__ = ["Decode", "Options", "Prefill", "Scan", "decode", "figures", "prefill", "scan"]

COLUMNS = ("what", "who", "weights", "bits", "batch", "context", "tokens/s", "of the limit")


def names(who: str, peers: bool) -> tuple[str, ...]:
    """Whom to measure: all of NAMES with their peers, or ours, or those that are named.

    Raises InputError for an unknown name, MissingExtra for a peer that is not installed.
    """
    named = tuple(name for name in who.split(",") if name)
    if unknown := [name for name in named if name not in NAMES]:
        raise InputError(f"--who {unknown[0]!r} is none of: {', '.join(NAMES)}")
    chosen = named or (NAMES if peers else NAMES[:1])
    require_peers(chosen)
    return chosen


decode, prefill, scan = decoding.measure, prefilling.measure, scanning.measure


def figures(measured: Measured, command: str, earlier: Mapping[str, Any] | None = None) -> JSON:
    """What `--json` holds. earlier: figures whose rounds these are added to."""
    before = earlier or {}
    everything = rounds.joined(before, measured.raw) if before else list(measured.raw)
    commands = [*before.get("commands", []), command]
    return {
        "machine": machine() | {"threads": measured.threads, "kernels": native.isa()},
        "date": date.today().isoformat(),
        "commands": list(dict.fromkeys(commands)),
        "rows": rounds.rows(everything),
        "profiles": [*before.get("profiles", []), *measured.profiles],
        "measured": everything,
    }


def earlier(path: Path | None) -> Mapping[str, Any] | None:
    """Figures of an earlier run, if there are any. Raises DataError for a file that is none."""
    if path is None or not path.exists():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is not what --json writes: remove it ({error})") from error


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a Markdown table."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---|---|---|" + "--:|" * (len(COLUMNS) - 3)]
    for row in rows:
        bits = f"{row['bits_per_weight']:.2f}" if "bits_per_weight" in row else ""
        cells = (
            *(row["what"], row["who"], row["weights"], bits),
            *(str(row["batch"]), f"{row['context']:,}", number(row["tokens_per_s"])),
            f"{row['fraction_of_limit']:.2f} of {row['limit']['is']}{_busy(row)}",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _busy(row: Mapping[str, Any]) -> str:
    return f" (busy: {row['disturbed']:.0%})" if "disturbed" in row else ""


def number(speed: float) -> str:
    """A speed in as many digits as it is known to."""
    return f"{speed:.2f}" if speed < 100 else f"{speed:,.0f}"
