"""The study of servers under load: its parts, and its section of the page."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import crowds
from .restarts import restarts

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Load:
    """clients: at once, for so many seconds. streams: at once. restarts: of a server, in all."""

    clients: int = 50
    seconds: float = 60.0
    streams: int = 200
    restarts: int = 10


_RUN: Mapping[str, Callable[[Load, int, Progress], dict[str, Any]]] = {
    "crowd": lambda load, seed, progress: crowds.plain(
        crowds.crowd(load.clients, load.seconds, seed, progress)
    ),
    "streams": lambda load, seed, progress: crowds.plain(
        crowds.streams(load.streams, seed, progress)
    ),
    "restarts": lambda load, seed, progress: restarts(load.restarts, seed, progress).plain(),
}
PARTS = tuple(_RUN)


def run_part(name: str, load: Load, seed: int, progress: Progress) -> dict[str, Any]:
    """A part's row."""
    return _RUN[name](load, seed, progress)


def section(rows: Sequence[Mapping[str, Any]]) -> str:
    """What was done and seen, in sentences, as Markdown."""
    lines = [_SENTENCE[row["part"]](row) for row in rows]
    listed = [f"- {row['part']}: {text}" for row in rows for text in row["failures"][:20]]
    return "\n\n".join(["## Servers under load", *lines, *listed]) + "\n"


def _crowd(row: Mapping[str, Any]) -> str:
    did = ", ".join(f"{name} {count:,}" for name, count in sorted(row["done"].items()))
    memory = {name: f"{size / 2**20:.0f}" for name, size in row["memory"].items()}
    flat = (
        f"Resident memory, MiB: {memory['start']} at the start, medians of {memory['earlier']} and "
        f"{memory['later']} in the halves of the last three quarters, at most {memory['most']}."
        if memory
        else "Too short for a word on memory."
    )
    return (
        f"**crowd**: {row['clients']} clients for {row['seconds']:.0f} s at a server of "
        f"{row['slots']} slots ({did}; {row['refused']:,} told to come again). All "
        f"{row['compared']:,} answers were held against what the same request gets alone. {flat} "
        "Afterwards nothing may run, wait or be open, every slot has to serve, and no file of a "
        f"deleted session may be left. Failures: {len(row['failures'])}."
    )


def _streams(row: Mapping[str, Any]) -> str:
    return (
        f"**streams**: {row['clients']:,} streams at once, a slot for each, "
        f"{row['most_at_once']:,} of them seen under way together; {row['compared']:,} held "
        f"against the answer alone, in {row['seconds']:.0f} s. Failures: {len(row['failures'])}."
    )


def _restarts(row: Mapping[str, Any]) -> str:
    return (
        f"**restarts**: {row['kills']} SIGKILLs and {row['stops']} SIGTERMs while "
        f"{row['sessions']} sessions were read into ({row['appended']:,} pieces). After each, "
        f"every session must have what was said to be kept ({row['unsaid']} times it had a piece "
        f"more), give the answer it gives undisturbed ({row['compared']:,} compared), and take "
        "another piece; no half-written file may be left. "
        f"Failures: {len(row['failures'])}."
    )


_SENTENCE = {"crowd": _crowd, "streams": _streams, "restarts": _restarts}
