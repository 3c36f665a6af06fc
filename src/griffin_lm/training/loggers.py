"""Where figures go: log.csv, TensorBoard's event file, W&B."""

import csv
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Logger(Protocol):
    """Takes a row of figures now and then."""

    name: str

    def write(self, step: int, figures: Mapping[str, float | int]) -> None:
        """One row; the same names every time."""
        ...

    def close(self) -> None:
        """The last call."""
        ...


def open_loggers(out: Path, steps: int) -> list[Logger]:
    """log.csv, and those that are installed; what can't be opened is left out with a word.

    steps: where the run goes on; rows of log.csv beyond it belong to steps that were lost.
    """
    opened: list[Logger] = []
    makers: list[tuple[str, Callable[[], Logger]]] = [("log.csv", lambda: CSVLog(out, steps))]
    if importlib.util.find_spec("tensorboard") is not None:
        makers.append(("TensorBoard", lambda: TensorBoard(out)))
    if importlib.util.find_spec("wandb") is not None:
        makers.append(("W&B", lambda: WandB(out)))
    for name, make in makers:
        try:
            opened.append(make())
        except Exception as error:  # whatever a foreign logger raises
            print(f"{name} can't be used and is left out ({error})", file=sys.stderr)
    return opened


class CSVLog:
    """out/log.csv: a header, then a row at a time."""

    name = "log.csv"

    def __init__(self, out: Path, steps: int) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self.path = out / "log.csv"
        if not self.path.exists():
            return
        with self.path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))
        kept = [row for row in rows[1:] if row and row[0].isdecimal() and int(row[0]) <= steps]
        if len(kept) < len(rows) - 1:
            aside = self.path.with_suffix(".part")
            with aside.open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows([*rows[:1], *kept])
            aside.replace(self.path)

    def write(self, step: int, figures: Mapping[str, float | int]) -> None:
        """Appends a row. Columns stay those of the file's header."""
        columns = list(figures)
        if self.path.exists():
            with self.path.open(newline="", encoding="utf-8") as file:
                columns = next(csv.reader(file), columns)
        fresh = not self.path.exists()
        with self.path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, restval="", extrasaction="ignore")
            if fresh:
                writer.writeheader()
            writer.writerow(figures)

    def close(self) -> None:
        """Nothing is held open."""


class TensorBoard:
    """An event file under out/tensorboard."""

    name = "TensorBoard"

    def __init__(self, out: Path) -> None:
        module: Any = importlib.import_module("torch.utils.tensorboard")
        self.writer: Any = module.SummaryWriter(str(out / "tensorboard"))

    def write(self, step: int, figures: Mapping[str, float | int]) -> None:
        """A scalar each."""
        for name, value in figures.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flushes the file."""
        self.writer.close()


class WandB:
    """A run under out/wandb: offline unless WANDB_MODE says otherwise, so no network is touched."""

    name = "W&B"

    def __init__(self, out: Path) -> None:
        module: Any = importlib.import_module("wandb")
        mode = os.environ.get("WANDB_MODE", "offline")
        self.run: Any = module.init(dir=str(out), mode=mode, resume="allow", id=_identity(out))

    def write(self, step: int, figures: Mapping[str, float | int]) -> None:
        """One row of scalars."""
        self.run.log(dict(figures), step=step)

    def close(self) -> None:
        """Ends the run."""
        self.run.finish()


def _identity(out: Path) -> str:
    """A name by which a resumed run is the same one, for W&B: letters, digits, - and _."""
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in out.resolve().name)[:64] or "run"
