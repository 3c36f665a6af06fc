"""The parts of `griffin bench serve`, each measured by itself or with others; their figures.

A part that is not measured now stays as an earlier run has left it, with that run's machine and
command.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from ...errors import DataError, InputError
from ...shapes import JSON
from ..machine import machine
from . import delay, engine, parked, reading

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Options:
    """of_engine: that part's own. streams, stream_tokens: of the delay.

    sessions: that are parked. tokens: of the long text.
    """

    of_engine: engine.Options = field(default_factory=engine.Options)
    streams: int = 32
    stream_tokens: int = 200
    sessions: int = 10_000
    tokens: int = 1_000_000


@dataclass(frozen=True)
class Part:
    """How it is measured, and what its progress counts."""

    measure: Callable[[Options, Progress], list[JSON]]
    unit: str


PARTS: Mapping[str, Part] = {
    "engine": Part(lambda options, progress: engine.measure(options.of_engine, progress), "rounds"),
    "delay": Part(lambda options, _: delay.measure(options.streams, options.stream_tokens), ""),
    "parked": Part(lambda options, told: parked.measure(options.sessions, told), "sessions"),
    "reading": Part(lambda options, told: reading.measure(options.tokens, told), "tokens"),
}


def chosen(names: str) -> tuple[str, ...]:
    """The parts that --only names; all for none. Raises InputError for what is none."""
    wanted = tuple(name for name in names.split(",") if name)
    if unknown := [name for name in wanted if name not in PARTS]:
        raise InputError(f"--only {unknown[0]!r} is none of: {', '.join(PARTS)}")
    return wanted or tuple(PARTS)


def earlier(path: Path | None) -> JSON:
    """Figures of an earlier run, if there are any. Raises DataError for a file that is none."""
    if path is None or not path.is_file():
        return {}
    try:
        found: JSON = json.loads(path.read_text(encoding="utf-8"))
        return found if {"parts", "rows"} <= found.keys() else {}
    except (ValueError, AttributeError) as error:
        raise DataError(f"{path} is not what --out writes: remove it ({error})") from error


def figures(
    measured: Mapping[str, Sequence[JSON]], options: Options, command: str, before: JSON
) -> JSON:
    """What the files hold: {"machine", "parts", "rows"}, a row with the part it is of."""
    made = {
        "command": command,
        "date": date.today().isoformat(),
        "machine": machine(),
        "options": asdict(options),
    }
    kept: list[Any] = [row for row in before.get("rows", []) if row["part"] not in measured]
    new = [{"part": part, **row} for part, rows in measured.items() for row in rows]
    of = {**before.get("parts", {}), **{part: made for part in measured}}
    order = list(PARTS)
    return {
        "machine": made["machine"],
        "parts": {part: of[part] for part in order if part in of},
        "rows": sorted([*kept, *new], key=lambda row: order.index(row["part"])),
    }
