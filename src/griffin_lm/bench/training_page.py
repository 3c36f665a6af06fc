"""docs/results/training.md, of all that was measured: python -m griffin_lm.bench.training_page

Every study of training writes its figures to docs/results/training/NAME.json and has a function
`section(figures)` that makes Markdown of them; this page puts the sections together. A study that
was not run yet is named with the command that runs it.
"""

import importlib
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DataError

FOLDER = Path("docs/results")


@dataclass(frozen=True)
class Study:
    """title: of its section. module: has `section`. command: that measures it."""

    title: str
    module: str
    command: str


STUDIES: Mapping[str, Study] = {
    "speed": Study(
        "Speed on a CPU",
        "griffin_lm.bench.train.report",
        "griffin bench train --peers --json docs/results/training/speed.json",
    ),
    "finetune": Study(
        "Fine-tuning that shows",
        "griffin_lm.bench.finetuning",
        "griffin bench finetune SFT --json docs/results/training/finetune.json",
    ),
    "trajectories": Study(
        "The same way, computed otherwise",
        "griffin_lm.bench.trajectories",
        "griffin bench trajectories --json docs/results/training/trajectories.json",
    ),
    "kills": Study(
        "Training runs killed at random moments",
        "griffin_lm.bench.reliability.kills",
        "griffin bench reliability --what kills --kills 1000 "
        "--json docs/results/training/kills.json",
    ),
}


def page(folder: Path) -> str:
    """The page, of the figures in a folder. Raises DataError for a file that is no figures."""
    sections = [section_of(name, study, folder) for name, study in STUDIES.items()]
    return "\n".join(
        [
            "# Training, as measured",
            "",
            "Made by `python -m griffin_lm.bench.training_page` from the figures in "
            "`docs/results/training/`; each section names the command that measured it. What many "
            "processes agree on with one is a table of [its own page](../distributed.md).",
            "",
            *sections,
        ]
    )


def section_of(name: str, study: Study, folder: Path) -> str:
    """A study's section, with its command and machine; a line where it was not run yet."""
    path = folder / f"{name}.json"
    if not path.is_file():
        return f"## {study.title}\n\nNot run yet: `{study.command}`.\n"
    try:
        figures: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        make: Callable[[Mapping[str, Any]], str] = importlib.import_module(study.module).section
        text = make(figures).strip("\n")
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not what {study.command!r} writes ({error!r})") from error
    stamp = _stamp(study, figures, text)
    if stamp:
        head, _, rest = text.partition("\n")
        text = f"{head}\n\n{stamp}\n{rest}"
    return text + "\n"


def _stamp(study: Study, figures: Mapping[str, Any], text: str) -> str:
    """What made the figures, and on what, as far as the section does not say so itself."""
    command = figures.get("command") or study.command
    said: list[str] = []
    if command not in text:
        when = f" on {figures['date']}" if "date" in figures else ""
        commands = ", then ".join(f"`{one}`" for one in (*figures.get("earlier", ()), command))
        said.append(f"Made by {commands}{when}.")
    if "machine" in figures and "Machine" not in text:
        facts = ", ".join(f"{name} {value}" for name, value in figures["machine"].items())
        said.append(f"Machine: {facts}.")
    return " ".join(said)


def main(folder: Path = FOLDER) -> None:
    """Writes training.md into a folder, from the figures in its folder `training`."""
    if not folder.is_dir():
        sys.exit(f"there is no folder {folder}: run this from the repository's folder")
    path = folder / "training.md"
    path.write_text(page(folder / "training"), encoding="utf-8")
    print(f"written: {path}")


if __name__ == "__main__":
    main()
