"""Rounds that other processes disturb: seen, made again, told apart."""

import subprocess
import sys
import time

import pytest

from griffin_lm.bench.cpu import quiet, rounds
from tests.bench.cpu.test_rounds import case, limits


def test_work_of_ones_own_is_not_that_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours, a child's, then a stranger's second of work on a machine of two cores."""
    clock = iter([0.0, 1.0])
    busy = iter([10.0, 11.5])
    own = iter([3.0, 4.0])
    monkeypatch.setattr(quiet.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(quiet.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(quiet, "_busy", lambda: next(busy))
    monkeypatch.setattr(quiet, "_own", lambda: next(own))
    with quiet.Others() as others:
        pass
    assert others.share == pytest.approx(0.25)


def test_processes_below_this_one_count_as_own() -> None:
    code = "import time; print(1, flush=True)\nwhile True: pass"
    before = quiet._own()
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stdout.readline()
        deadline = time.monotonic() + 60
        while quiet._own() < before + 0.2 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert quiet._own() >= before + 0.2
        child.kill()


def test_a_disturbed_measurement_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    shares = iter([0.5, 0.01])
    monkeypatch.setattr(quiet, "wait", lambda _: True)
    monkeypatch.setattr(quiet.Others, "__enter__", lambda self: self)
    monkeypatch.setattr(
        quiet.Others, "__exit__", lambda self, *_: setattr(self, "share", next(shares))
    )
    found = rounds.measure(
        [case("griffin", [9.0, 1.0])], limits(8, 8), 1, lambda _: None, patience=1.0
    )
    assert (found[0]["seconds"], found[0]["others"]) == (1.0, 0.01)


def test_only_undisturbed_rounds_make_a_row_where_there_are_any() -> None:
    found = rounds.measure([case("griffin", [1.0, 9.0])], limits(8, 8, 8, 8), 2, lambda _: None)
    found[0]["others"], found[1]["others"] = 0.0, 0.6
    [row] = rounds.rows(found)
    assert (row["tokens_per_s"], row["rounds"]) == (2.0, 1) and "disturbed" not in row
    [row] = rounds.rows(found[1:])
    assert row["disturbed"] == 0.6
