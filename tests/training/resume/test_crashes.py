"""The crash sweep: whichever operation is the last, loading gives the old or the new content."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from griffin_lm.errors import TrainingError
from griffin_lm.training.resume import Saver, disk, load, newest
from tests.training.resume.fragile import (
    Death,
    FailingDisk,
    HastyDisk,
    MortalDisk,
    nothing_kept,
    sometimes_kept,
)
from tests.training.resume.values import content, same

AFTER = {
    "the process is killed": None,
    "the power is cut, nothing unflushed is kept": nothing_kept,
    "the power is cut, some is kept": sometimes_kept(0),
}
MORE = [
    pytest.param(sometimes_kept(seed), id=f"some is kept ({seed})", marks=pytest.mark.slow)
    for seed in range(1, 6)
]
each_after = pytest.mark.parametrize(
    "after", [*(pytest.param(kept, id=name) for name, kept in AFTER.items()), *MORE]
)
MORE_THAN_ALL = 100  # operations of one save


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is saved before and after the disaster needs no waiting for a real disk."""
    monkeypatch.setattr(disk, "DISK", HastyDisk())


def saved(out: Path, steps: list[int]) -> None:
    saver = Saver(out, keep=2, background=False)
    for step in steps:
        saver.save(step, content(step))


def quiet(_: str) -> None:
    pass


def found(out: Path) -> int | None:
    """The step that loads, its content held against what was saved under that number."""
    path = newest(out, quiet)
    if path is None:
        return None
    loaded = load(path)
    step = loaded["progress"]["steps"]
    assert same(loaded, content(step)), f"{path} is a mixture"
    return step


@pytest.mark.parametrize(
    ("before", "background"),
    [([], False), ([10], False), ([10, 20, 30], False), ([10, 20, 30], True)],
    ids=["first", "second", "fourth", "in the background"],
)
@each_after
def test_a_death_at_any_operation_leaves_the_old_or_the_new(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    before: list[int],
    after: Callable[[], bool] | None,
    background: bool,
):
    seen: list[int | None] = []
    for at in range(1, MORE_THAN_ALL):
        root = tmp_path / str(at)
        root.mkdir()
        out = root / "run"
        saved(out, before)
        mortal = MortalDisk(root, at)
        with monkeypatch.context() as patch:
            patch.setattr(disk, "DISK", mortal)
            saver = Saver(out, 2, background)
            try:
                saver.save(40, content(40))
                saver.wait()
            except Death:
                assert mortal.died
        if after is not None:
            mortal.cut_power(after)
        seen.append(found(out))
        assert seen[-1] in (before[-1] if before else None, 40)
        saved(out, [50])
        assert found(out) == 50
        assert not list(out.glob("step-*.*"))
        if not mortal.died:
            break
    assert not mortal.died, "the sweep did not reach the end of a save"
    assert len(seen) > 15 and seen[0] != 40
    assert seen[-1] == 40, "a save that returned was not durable"


@each_after
def test_saving_a_step_again_never_loses_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: Callable[[], bool] | None
):
    for at in range(1, MORE_THAN_ALL):
        root = tmp_path / str(at)
        root.mkdir()
        out = root / "run"
        saved(out, [40])
        mortal = MortalDisk(root, at)
        with monkeypatch.context() as patch:
            patch.setattr(disk, "DISK", mortal)
            try:
                Saver(out, 1, background=False).save(40, content(40) | {"again": True})
            except Death:
                assert mortal.died
        if after is not None:
            mortal.cut_power(after)
        path = newest(out, quiet)
        assert path is not None
        loaded = load(path)
        again = loaded.pop("again", False)
        assert same(loaded, content(40))
        if not mortal.died:
            break
    assert not mortal.died and again


@pytest.mark.parametrize(
    ("number", "once"),
    [(errno.ENOSPC, True), (errno.ENOSPC, False), (errno.EIO, True), (errno.EROFS, False)],
)
def test_an_error_at_any_operation_is_told_and_leaves_the_last_good_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, once: bool
):
    told = 0
    for at in range(1, MORE_THAN_ALL):
        out = tmp_path / str(at)
        saved(out, [10, 20, 30])
        failing = FailingDisk(at, OSError(number, os.strerror(number)), once)
        with monkeypatch.context() as patch:
            patch.setattr(disk, "DISK", failing)
            saver = Saver(out, 2)
            saver.save(40, content(40))
            try:
                saver.wait()
            except TrainingError as error:
                told += 1
                assert os.strerror(number) in str(error) and "step 40" in str(error)
                assert "step-30 is as it was" in str(error) or (out / "step-40").exists()
                assert found(out) in (30, 40)
            else:  # only removing what is no longer needed may fail quietly
                assert found(out) == 40
        saved(out, [50])
        assert found(out) == 50 and not list(out.glob("step-*.*"))
        if failing.count < at:
            break
    assert failing.count < at and told > 10
