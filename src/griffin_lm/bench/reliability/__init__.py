"""What must hold whatever happens: `griffin bench reliability`, a table of studies.

A study is a row of STUDIES: parts that --what can name, and a function that runs some of them.
`fuzz`: damaged files of every kind that the package reads. `kills`: training runs that are killed.
`serve`: servers among clients who leave, read slowly and send nonsense; servers that are killed.
"""

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from ...errors import DataError, InputError
from .fuzzing import Fuzzing, Progress
from .kills import ARMS, Killed, kill, section
from .load import PARTS, Load, run_part
from .load import section as load_section
from .readers import READERS
from .report import fuzz_section, page

__all__ = ["STUDIES", "Load", "Options", "Result", "Study", "chosen", "repeat", "write_page"]


@dataclass(frozen=True)
class Options:
    """inputs: in all. seed: of the damage. workers: processes. failures: a folder to keep them.

    kills: of training runs, in all.
    load: of servers.
    """

    inputs: int = 20_000
    kills: int = 50
    load: Load = field(default_factory=Load)
    seed: int = 0
    workers: int = 1
    failures: Path | None = None


@dataclass(frozen=True)
class Result:
    """A study's rows for --json, its section of the page in Markdown, and how much failed."""

    rows: list[dict[str, Any]]
    section: str
    failures: int
    notes: list[str] = field(default_factory=list[str])


@dataclass(frozen=True)
class Study:
    """What it is called and does; what --what can name in it; how to run those parts.

    unit: what its progress counts.
    """

    name: str
    parts: tuple[str, ...]
    run: Callable[[Sequence[str], Options, Progress], Result]
    unit: str = "batches"


def _fuzz(parts: Sequence[str], options: Options, progress: Progress) -> Result:
    readers = {name: READERS[name] for name in parts}
    fuzzing = Fuzzing(readers, options.seed, options.workers, options.failures)
    rows = fuzzing.run(options.inputs, progress)
    notes = [
        f"left out: {name}, which needs the package {package}"
        for name, package in fuzzing.absent.items()
    ]
    count = sum(len(row.failures) for row in rows)
    return Result([row.plain() for row in rows], fuzz_section(rows, options.seed), count, notes)


def _kills(parts: Sequence[str], options: Options, progress: Progress) -> Result:
    found: list[Killed] = []
    for number, name in enumerate(parts):
        share = options.kills // len(parts) + (number < options.kills % len(parts))
        before = sum(one.kills for one in found)
        with tempfile.TemporaryDirectory(prefix="griffin-kills-") as folder:
            killed = kill(
                ARMS[name],
                share,
                options.seed + number,
                Path(folder),
                lambda done, before=before: progress(before + done, options.kills),
            )
        found.append(killed)
    rows = [one.plain() for one in found]
    failures = sum(len(one.failures) for one in found)
    return Result(rows, section({"rows": rows}), failures)


def _serve(parts: Sequence[str], options: Options, progress: Progress) -> Result:
    rows = [run_part(name, options.load, options.seed, progress) for name in parts]
    return Result(rows, load_section(rows), sum(len(row["failures"]) for row in rows))


STUDIES: Mapping[str, Study] = {
    study.name: study
    for study in (
        Study("fuzz", tuple(READERS), _fuzz),
        Study("kills", tuple(ARMS), _kills, "kills"),
        Study("serve", PARTS, _serve, "of a part"),
    )
}


def chosen(names: Sequence[str]) -> list[tuple[Study, tuple[str, ...]]]:
    """The studies, and the parts of each, that some names ask for; all of them for none.

    Raises InputError for a name that is neither a study's nor a part's.
    """
    known = {name for study in STUDIES.values() for name in (study.name, *study.parts)}
    if unknown := [name for name in names if name not in known]:
        there = "; ".join(f"{s.name} ({', '.join(s.parts)})" for s in STUDIES.values())
        raise InputError(f"nothing is called {unknown[0]!r}; there are: {there}")
    found: list[tuple[Study, tuple[str, ...]]] = []
    for study in STUDIES.values():
        whole = not names or study.name in names
        parts = tuple(part for part in study.parts if whole or part in names)
        if parts:
            found.append((study, parts))
    return found


def write_page(
    out: Path, results: Mapping[str, Result], command: str, machine: Mapping[str, Any]
) -> None:
    """reliability.md and reliability.json into a folder; studies that were not run now stay there.

    Raises DataError where the figures that are there already can't be read.
    """
    out.mkdir(parents=True, exist_ok=True)
    file = out / "reliability.json"
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))["studies"] if file.exists() else {}
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file} is not what --out writes ({error!r}): remove it") from error
    made = {"command": command, "date": date.today().isoformat(), "machine": machine}
    for name, result in results.items():
        kept[name] = made | {"section": result.section, "rows": result.rows}
    (out / "reliability.md").write_text(
        page([kept[name] for name in STUDIES if name in kept]), encoding="utf-8"
    )
    file.write_text(json.dumps({"studies": kept}, indent=1) + "\n", encoding="utf-8")


def repeat(folder: Path) -> list[dict[str, Any]]:
    """Tries the input that a run has kept in a folder; returns its failures, none if it passes."""
    return Fuzzing(READERS, 0, 1).repeat(folder)
