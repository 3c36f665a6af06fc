"""Cells, measured one after the other: each is a file of its own, whole or not there at all."""

import json
import os
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from ..errors import DataError, GriffinError, InputError
from ..evals.report import machine
from ..shapes import JSON
from .study import Cell, Done, Place, Study


def cells_folder(out: Path, name: str, scale: str) -> Path:
    """Where the finished cells of a study lie."""
    return out / "cells" / name / scale


def finished(folder: Path) -> dict[str, JSON]:
    """Cells by name. Raises DataError for a file that is none."""
    found: dict[str, JSON] = {}
    for path in sorted(folder.glob("*.json")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            _ = record["settings"]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} is not a finished cell: remove it ({error})") from error
        found[path.stem] = record
    return found


def waiting(study: Study, settings: Any, done: Done) -> list[Cell]:
    """Cells of the plan that are not finished, or were with other settings."""
    return [
        cell
        for cell in study.plan(settings, done)
        if cell.name not in done or done[cell.name]["settings"] != plain(cell.settings)
    ]


def run(
    study: Study,
    settings: Any,
    folder: Path,
    place: Place,
    command: str,
    minutes: float = 0.0,
    only: Sequence[str] = (),
) -> dict[str, JSON]:
    """Measures what is not finished; every finished cell, old and new.

    A cell that raises one of our errors is kept as failed, with the reason, and not tried again.
    minutes > 0: no cell begins that would end later, going by the longest of this run so far.
    only: parts of names; other cells wait. Whatever stops the run loses the cell under way alone.
    """
    began, longest = time.monotonic(), 0.0
    done = finished(folder)
    while True:
        left = waiting(study, settings, done)
        left = [cell for cell in left if not only or any(part in cell.name for part in only)]
        if not left:
            return done
        at = time.monotonic()
        if minutes > 0 and at - began + longest > 60 * minutes:
            place.say(f"{len(left)} cells are left; the same command goes on with them")
            return done
        cell = left[0]
        place.say(f"{cell.name} (finished {len(done)}, known to be left {len(left)})")
        record: JSON = {"cell": cell.name, "settings": plain(cell.settings)}
        try:
            record["result"] = plain(study.measure(settings, cell, place))
        except InputError:  # a wrong call, such as data that is not there: nothing was found out
            raise
        except GriffinError as error:
            record["failed"] = str(error)
            place.say(f"{cell.name} failed: {error}")
        took = time.monotonic() - at
        longest = max(longest, took)
        record |= {
            "seconds": round(took, 1),
            "machine": machine(),
            "command": command,
            "date": date.today().isoformat(),
        }
        write(folder / f"{cell.name}.json", record)
        done[cell.name] = record


def write(path: Path, figures: JSON) -> None:
    """JSON, written aside and renamed: never half a file."""
    replace_file(path, json.dumps(figures, indent=1, ensure_ascii=False) + "\n")


def replace_file(path: Path, text: str) -> None:
    """Text in place of whatever the file held."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, path)


def plain(values: Any) -> Any:
    """As JSON gives it back: tuples are lists, keys are text."""
    return json.loads(json.dumps(values))
