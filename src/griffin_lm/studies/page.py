"""The page of a study: Markdown from finished cells, at the largest scale that has any."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ..shapes import JSON
from .grid import plain, waiting
from .study import SCALES, Done, Study, Table, results

HYPOTHESES = "hypotheses.md"


def largest(cells: Mapping[str, Done]) -> str | None:
    """The largest scale with a finished cell; None: nothing was run."""
    return next((scale for scale in reversed(tuple(cells)) if cells[scale]), None)


def figures(name: str, study: Study, cells: Mapping[str, Done]) -> JSON:
    """What the JSON file holds: {"study", "scale", "machine", "command", "date", "settings",
    "cells", "scales"}; every cell has its own machine, command, seconds and date too.
    """
    scale = largest(cells)
    done = cells[scale] if scale else {}
    last = max(done.values(), key=lambda record: record["date"], default={})
    return {
        "study": name,
        "scale": scale,
        "machine": last.get("machine"),
        "command": last.get("command"),
        "date": last.get("date"),
        "settings": _plain(study.scales[scale]) if scale else {},
        "scales": {scale: _state(study, scale, done) for scale, done in cells.items()},
        "cells": dict(sorted(done.items())),
    }


def page(name: str, study: Study, cells: Mapping[str, Done]) -> str:
    """The whole page. cells: finished ones by scale, smallest scale first."""
    scale = largest(cells)
    parts = [f"# {study.title}", study.question]
    if scale is None:
        parts.append("Nothing was run yet.")
    else:
        settings, done = study.scales[scale], cells[scale]
        parts += [f"![{study.title}]({name}.png)", _made(name, scale, done)]
        parts += [_table(table) for table in study.tables(settings, done) if table.rows]
        if lines := study.verdicts(settings, done):
            found = "\n".join(f"- {line}" for line in lines)
            parts.append(f"## Against the [hypotheses]({HYPOTHESES})\n\n{found}")
        parts.append(_failed(done))
    parts += ["## What is done", study.setup]
    if scale is not None:
        parts += [f"## Settings at scale {scale}", _settings(study.scales[scale])]
    parts += ["## Published, to lay beside", study.beside]
    parts += ["## What it does not show", study.limits]
    parts += ["## Scales", _scales(study, cells)]
    parts.append(
        f"Hypotheses and stop rules were written before any run: [{HYPOTHESES}]({HYPOTHESES})."
    )
    return "\n\n".join(part for part in parts if part) + "\n"


def _made(name: str, scale: str, done: Done) -> str:
    machines = sorted({_machine(record["machine"]) for record in done.values()})
    dates = sorted({record["date"] for record in done.values()})
    commands = sorted({record["command"] for record in done.values()})
    seeds = sorted(
        {record["settings"]["seed"] for record in done.values() if "seed" in record["settings"]}
    )
    texts = sorted({one["texts"] for one in results(done).values() if "texts" in one})
    whole = sum(record["seconds"] for record in done.values()) / 60
    said = " and ".join(f"`{command}`" for command in commands)
    lines = [
        f"Scale {scale}: {said} on {' to '.join(dict.fromkeys((dates[0], dates[-1])))}; "
        f"{'; '.join(machines)}. {len(done)} cells, {whole:.1f} minutes by the clock.",
        f"Seeds: {', '.join(map(str, seeds))}." if seeds else "",
        f"Texts: {'; '.join(texts)}." if texts else "",
        f"All figures: [{name}.json]({name}.json); every cell with its own time, machine and "
        f"command: `cells/{name}/{scale}`.",
    ]
    return " ".join(line for line in lines if line)


def _machine(facts: JSON) -> str:
    where = (
        facts.get("gpu") or f"{facts['processor']}, {facts['threads']} of {facts['cores']} cores"
    )
    return f"{where}, PyTorch {facts['torch']}"


def _table(table: Table) -> str:
    head = "| " + " | ".join(table.head) + " |\n|---|" + "--:|" * (len(table.head) - 1)
    rows = "\n".join("| " + " | ".join(row) + " |" for row in table.rows)
    return f"## {table.title}\n\n{head}\n{rows}"


def _failed(done: Done) -> str:
    rows = [(name, record["failed"]) for name, record in sorted(done.items()) if "failed" in record]
    if not rows:
        return "## Failed runs\n\nNone."
    return "## Failed runs\n\n" + "\n".join(f"- `{name}`: {reason}" for name, reason in rows)


def _settings(settings: Any) -> str:
    return "\n".join(f"- {key}: `{value}`" for key, value in _plain(settings).items())


def _plain(settings: Any) -> JSON:
    """A study's settings are a dataclass of its own."""
    return plain(asdict(settings))


def _state(study: Study, scale: str, done: Done) -> JSON:
    left = len(waiting(study, study.scales[scale], done))
    return {"finished": len(done), "known_to_be_left": left}


def _scales(study: Study, cells: Mapping[str, Done]) -> str:
    lines: list[str] = []
    for scale in SCALES:
        done = cells.get(scale, {})
        left = len(waiting(study, study.scales[scale], done))
        if not done:
            said = "not run yet."
        elif left:
            said = f"{len(done)} cells run; at least {left} **not run yet**."
        else:
            said = f"run, {len(done)} cells."
        lines.append(f"- {scale}: {said}")
    return "\n".join(lines)


def verdict(claim: str, held: bool | None, figures: str) -> str:
    """A line that holds a claim against figures; held None: they do not decide it."""
    word = {True: "held", False: "refuted", None: "not decided"}[held]
    return f"{claim}: **{word}** ({figures})."


def median(values: Sequence[float]) -> float:
    """The middle one, or the mean of the middle two."""
    ordered = sorted(values)
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2


def joined(values: Sequence[float], form: str = ".3f") -> str:
    """Median of several seeds with least and most; one alone as it is; a dash for none."""
    if not values:
        return "–"
    if len(values) == 1:
        return format(values[0], form)
    return f"{median(values):{form}} ({min(values):{form}}–{max(values):{form}})"
