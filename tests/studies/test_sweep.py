"""Rates are swept on one seed; the grid grows at its ends; more seeds follow at the best."""

from collections.abc import Callable
from typing import Any

from griffin_lm.studies.study import Cell
from griffin_lm.studies.sweep import Sweep, at_best, rate_said

SWEEP = Sweep(rates=(0.001, 0.004, 0.016), factor=4.0, seeds=(0, 1, 2))


def played(
    score: Callable[[float], float | None], sweep: Sweep = SWEEP, final: Any = None
) -> tuple[dict[str, Any], list[str]]:
    """All cells of a sweep, measured one after the other; None: a run that fails."""
    done: dict[str, Any] = {}
    order: list[str] = []
    while True:
        cells: list[Cell] = sweep.cells(done, "a", {"architecture": "a"}, final)
        left = [cell for cell in cells if cell.name not in done]
        if not left:
            return done, order
        cell = left[0]
        order.append(cell.name)
        found = score(cell.settings["rate"])
        record = {"failed": "nan"} if found is None else {"result": {"score": found}}
        done[cell.name] = {"settings": dict(cell.settings), **record}


def test_the_best_inside_gets_the_other_seeds() -> None:
    done, order = played(lambda rate: abs(rate - 0.004))
    assert order == [
        *(f"a-rate{rate}-seed0" for rate in ("0.001", "0.004", "0.016")),
        "a-rate0.004-seed1",
        "a-rate0.004-seed2",
    ]
    assert rate_said(done, SWEEP, {"architecture": "a"}) == "0.004"
    assert [s["seed"] for s, _ in at_best(done, SWEEP, {"architecture": "a"})] == [0, 1, 2]


def test_a_best_at_the_end_extends_the_grid_until_it_lies_inside() -> None:
    done, order = played(lambda rate: abs(rate - 0.064))
    assert order[3:5] == ["a-rate0.064-seed0", "a-rate0.256-seed0"]
    assert rate_said(done, SWEEP, {"architecture": "a"}) == "0.064"


def test_a_best_that_stays_at_the_edge_is_said() -> None:
    done, order = played(lambda rate: rate)
    assert order[3:5] == ["a-rate0.00025-seed0", "a-rate6.25e-05-seed0"]
    assert rate_said(done, SWEEP, {"architecture": "a"}) == "6.25e-05, at an edge"


def test_a_rate_that_failed_counts_as_tried() -> None:
    done, _ = played(lambda rate: None if rate > 0.01 else -rate)
    assert rate_said(done, SWEEP, {"architecture": "a"}) == "0.004"


def test_where_all_fail_nothing_more_is_asked() -> None:
    done, order = played(lambda rate: None)
    assert len(order) == 3 and rate_said(done, SWEEP, {"architecture": "a"}) == "–"
    assert at_best(done, SWEEP, {"architecture": "a"}) == []


def test_of_equal_scores_the_fewest_steps_win() -> None:
    cells = SWEEP.cells({}, "a", {"architecture": "a"})
    done = {
        cell.name: {"settings": cell.settings, "result": {"score": 0.0, "steps": steps}}
        for cell, steps in zip(cells, (300, 200, 100), strict=True)
    }
    assert SWEEP.best(done, {"architecture": "a"}) == 0.016


def test_runs_in_full_have_cells_of_their_own() -> None:
    _, order = played(lambda rate: abs(rate - 0.004), final={"stage": "final"})
    assert order[3:] == [f"a-final-rate0.004-seed{seed}" for seed in (0, 1, 2)]


def test_a_single_rate_is_said_not_to_be_swept() -> None:
    one = Sweep(rates=(0.004,), factor=4.0, seeds=(0,), extend=0)
    done, order = played(lambda rate: 1.0, one)
    assert order == ["a-rate0.004-seed0"]
    assert rate_said(done, one, {"architecture": "a"}) == "0.004, not swept"


def test_a_sweep_that_is_not_finished_is_said() -> None:
    (cell, *_) = SWEEP.cells({}, "a", {"architecture": "a"})
    done = {cell.name: {"settings": cell.settings, "result": {"score": 1.0}}}
    assert rate_said(done, SWEEP, {"architecture": "a"}) == "0.001, 1 of 3 tried yet"
