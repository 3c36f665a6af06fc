"""The picture of recall against distance."""

from pathlib import Path

from griffin_lm.evals.recall import Cell
from griffin_lm.evals.recall_plot import draw, points


def cell(distance: int, field: str, right: int, noted: bool = True) -> Cell:
    return Cell(distance=distance, field=field, noted=noted, n=4, right=right)


CELLS = [
    cell(256, "name", 2),
    cell(64, "name", 4),
    cell(64, "place", 3),
    cell(64, "name", 4, noted=False),
    cell(64, "place", 2, noted=False),
]


def test_shares_stand_by_distance_and_all_fields_without_a_note_are_one_line() -> None:
    assert points(CELLS) == {
        "name": [(64, 1.0), (256, 0.5)],
        "place": [(64, 0.75)],
        "no note": [(64, 0.75)],
    }


def test_the_same_figures_draw_the_same_file(tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg"):
        draw(CELLS, 64, tmp_path / name)
    drawn = (tmp_path / "a.svg").read_text()
    assert drawn == (tmp_path / "b.svg").read_text()
    assert "none, and it says so" in drawn and "place" in drawn and "number" not in drawn
