"""Cells: atomic, resumable, failures kept; the page says what was run and what was not."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from griffin_lm.errors import DataError, InputError, TrainingError
from griffin_lm.studies import compare, registry
from griffin_lm.studies.grid import cells_folder, finished, run, waiting
from griffin_lm.studies.page import joined
from griffin_lm.studies.study import Cell, Done, Line, Panel, Place, Study, Table

PLACE = Place(torch.device("cpu"), None, lambda line: None)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Numbers to be squared."""

    numbers: tuple[int, ...] = (1, 2, 3)


def study(measure: Callable[[int], Any] = lambda n: n * n) -> Study:
    """Squares; the largest square is doubled in a cell that the others' figures bring about."""

    def plan(settings: Settings, done: Done) -> list[Cell]:
        cells = [Cell(f"n{n}", {"n": n, "seed": n}) for n in settings.numbers]
        squares = [done[c.name].get("result", {}).get("y", 0) for c in cells if c.name in done]
        if len(squares) == len(cells):
            cells.append(Cell("last", {"n": max(squares), "seed": 0}))
        return cells

    def table(settings: Settings, done: Done) -> list[Table]:
        rows = [
            [name, str(record.get("result", {}).get("y", "–"))] for name, record in done.items()
        ]
        return [Table("Squares", ["cell", "y"], rows)]

    def panels(settings: Settings, done: Done) -> list[Panel]:
        x = [record["settings"]["n"] for record in done.values() if "result" in record]
        return [Panel("Squares", "n", "n squared", [Line("griffin", x, [n * n for n in x])], "")]

    return Study(
        title="Squares",
        question="How large is a square?",
        setup="Squaring.",
        beside="Euclid.",
        limits="Cubes.",
        scales={"smoke": Settings(), "cpu": Settings(), "gpu": Settings()},
        plan=plan,
        measure=lambda settings, cell, place: {"y": measure(cell.settings["n"])},
        tables=table,
        panels=panels,
    )


def test_a_plan_sees_what_is_finished_and_goes_on_from_there(tmp_path: Path) -> None:
    done = run(study(), Settings(), tmp_path, PLACE, "griffin compare")
    assert list(done) == ["n1", "n2", "n3", "last"]
    assert done["last"]["result"] == {"y": 81}
    record = json.loads((tmp_path / "n2.json").read_text())
    assert record["result"] == {"y": 4} and record["settings"] == {"n": 2, "seed": 2}
    assert {"seconds", "machine", "command", "date"} <= set(record)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_finished_cells_are_not_measured_again(tmp_path: Path) -> None:
    run(study(), Settings(), tmp_path, PLACE, "")
    asked: list[int] = []

    def square(n: int) -> int:
        asked.append(n)
        return n * n

    (tmp_path / "n3.json").unlink()
    run(study(square), Settings(), tmp_path, PLACE, "")
    assert asked == [3]


def test_a_cell_of_other_settings_is_measured_again(tmp_path: Path) -> None:
    run(study(), Settings(), tmp_path, PLACE, "")
    path = tmp_path / "n2.json"
    path.write_text(path.read_text().replace('"n": 2', '"n": 5'))
    left = waiting(study(), Settings(), finished(tmp_path))
    assert [cell.name for cell in left] == ["n2"]


def test_a_failed_cell_is_kept_with_its_reason_and_the_others_go_on(tmp_path: Path) -> None:
    def square(n: int) -> int:
        if n == 2:
            raise TrainingError("the loss is nan at step 3")
        return n * n

    done = run(study(square), Settings(), tmp_path, PLACE, "")
    assert done["n2"]["failed"] == "the loss is nan at step 3" and "result" not in done["n2"]
    assert done["last"]["result"] == {"y": 81}


def test_what_stops_a_run_loses_the_cell_under_way_alone(tmp_path: Path) -> None:
    def square(n: int) -> int:
        if n == 3:
            raise KeyboardInterrupt
        return n * n

    with pytest.raises(KeyboardInterrupt):
        run(study(square), Settings(), tmp_path, PLACE, "")
    assert set(finished(tmp_path)) == {"n1", "n2"}
    assert set(run(study(), Settings(), tmp_path, PLACE, "")) == {"n1", "n2", "n3", "last"}


def test_no_cell_begins_that_would_end_after_the_time_given(tmp_path: Path) -> None:
    def square(n: int) -> int:
        time.sleep(0.05)
        return n

    said: list[str] = []
    place = PLACE._replace(say=said.append)
    done = run(study(square), Settings(), tmp_path, place, "", minutes=0.08 / 60)
    assert 1 <= len(done) < 4
    assert "are left; the same command goes on" in said[-1]


def test_only_some_cells(tmp_path: Path) -> None:
    assert set(run(study(), Settings(), tmp_path, PLACE, "", only=["n1", "n3"])) == {"n1", "n3"}


def test_a_file_that_is_no_cell_is_named(tmp_path: Path) -> None:
    (tmp_path / "n1.json").write_text("{")
    with pytest.raises(DataError, match=r"n1\.json is not a finished cell: remove it"):
        finished(tmp_path)


@pytest.fixture
def squares(monkeypatch: pytest.MonkeyPatch) -> None:
    """A study in the registry, as a newcomer adds one."""
    monkeypatch.setitem(dict(registry.STUDIES), "squares", study())
    monkeypatch.setattr(compare, "STUDIES", {**registry.STUDIES, "squares": study()})


def test_page_plot_and_figures_are_written(squares: None, tmp_path: Path) -> None:
    found = compare.compare("squares", "smoke", tmp_path, PLACE, "griffin compare squares")
    page = (tmp_path / "squares.md").read_text()
    assert "# Squares" in page and "| n3 | 9 |" in page and "`griffin compare squares`" in page
    assert "- smoke: run, 4 cells." in page and "- gpu: not run yet." in page
    assert "Seeds: 0, 1, 2, 3." in page and "## Failed runs\n\nNone." in page
    assert found["scale"] == "smoke" and found["cells"]["n2"]["result"] == {"y": 4}
    assert json.loads((tmp_path / "squares.json").read_text()) == found
    assert (tmp_path / "squares.svg").read_text().startswith("<?xml")
    assert (tmp_path / "squares.png").read_bytes().startswith(b"\x89PNG")


def test_the_page_shows_the_largest_scale_and_what_is_left_of_it(
    squares: None, tmp_path: Path
) -> None:
    compare.compare("squares", "smoke", tmp_path, PLACE, "")
    compare.compare("squares", "cpu", tmp_path, PLACE, "", only=["n1"])
    page = (tmp_path / "squares.md").read_text()
    assert "| n1 | 1 |" in page and "| n2 | 4 |" not in page
    assert "- cpu: 1 cells run; at least 2 **not run yet**." in page


def test_the_same_cells_give_the_same_files(squares: None, tmp_path: Path) -> None:
    compare.compare("squares", "smoke", tmp_path, PLACE, "")
    before = {path.name: path.read_bytes() for path in tmp_path.glob("squares.*")}
    compare.publish("squares", tmp_path)
    assert before == {path.name: path.read_bytes() for path in tmp_path.glob("squares.*")}


def test_failures_stand_on_the_page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def square(n: int) -> int:
        raise TrainingError(f"{n} is no good")

    monkeypatch.setattr(compare, "STUDIES", {"squares": study(square)})
    compare.compare("squares", "smoke", tmp_path, PLACE, "")
    assert "- `n2`: 2 is no good" in (tmp_path / "squares.md").read_text()


def test_an_unknown_study_and_scale_are_answered_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no study 'breadth'; there are: length"):
        compare.compare("breadth", "smoke", tmp_path, PLACE, "")
    with pytest.raises(InputError, match="'large' is none of: smoke, cpu, gpu"):
        compare.compare("length", "large", tmp_path, PLACE, "")


def test_seeds_are_shown_with_their_spread() -> None:
    assert joined([]) == "–" and joined([0.5]) == "0.500"
    assert joined([3.0, 1.0, 2.0], ".1f") == "2.0 (1.0–3.0)"
    assert joined([1.0, 2.0], ".2f") == "1.50 (1.00–2.00)"


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_with_the_cell_it_was_in(tmp_path: Path) -> None:
    command = ["compare", "length", "--scale", "smoke", "--out", str(tmp_path)]
    words = [sys.executable, "-c", "from griffin_lm.cli.main import main; main()", *command]
    folder = cells_folder(tmp_path, "length", "smoke")
    with subprocess.Popen(words, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as first:
        deadline = time.monotonic() + 120
        while not finished(folder) and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(first.pid, signal.SIGKILL)
    before = {path: path.read_bytes() for path in folder.glob("*.json")}
    assert before
    again = subprocess.run(words, capture_output=True, text=True, timeout=240)
    assert again.returncode == 0, again.stderr
    assert all(path.read_bytes() == content for path, content in before.items())
    assert "- smoke: run, 7 cells." in (tmp_path / "length.md").read_text()
