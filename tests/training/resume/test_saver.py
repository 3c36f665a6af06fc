"""Saving and loading: what comes back, what is kept, what is refused."""

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from griffin_lm.checkpoints import open_source, read_config
from griffin_lm.errors import TrainingError
from griffin_lm.models import ModelConfig
from griffin_lm.training.resume import Saver, disk, load, newest, refuse_other_config
from tests.training.resume.values import CONFIG, content, same

both = pytest.mark.parametrize("background", [False, True], ids=["at once", "in the background"])


@both
def test_what_is_loaded_is_what_was_saved(tmp_path: Path, background: bool):
    with Saver(tmp_path / "new" / "run", 2, background) as saver:
        saver.save(7, content(7))
    path = newest(tmp_path / "new" / "run")
    assert path == tmp_path / "new" / "run" / "step-7"
    assert same(load(path), content(7))


def test_weights_in_it_are_a_checkpoint_of_ours(tmp_path: Path):
    Saver(tmp_path, 1, background=False).save(1, content(1))
    assert read_config(tmp_path / "step-1").to_dict() == CONFIG
    source = open_source(tmp_path / "step-1")
    assert torch.equal(source.get("first"), content(1)["model"]["first"])


def test_changes_right_after_save_are_not_stored(tmp_path: Path):
    value, wanted = content(3), content(3)
    saver = Saver(tmp_path, 1)
    saver.save(3, value)
    for tensor in (value["model"]["first"], value["optimizer"]["state"][0]["exp_avg"]):
        tensor.zero_()
    value["feed"]["bin"].append([9])
    value["progress"]["steps"] = 4
    saver.wait()
    assert same(load(tmp_path / "step-3"), wanted)


def test_loading_waits_for_a_save_that_is_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import threading

    go, real = threading.Event(), disk.Disk()

    class Slow(disk.Disk):
        def rename(self, old: Path, new: Path) -> None:
            go.wait(30)
            real.rename(old, new)

    monkeypatch.setattr(disk, "DISK", Slow())
    saver = Saver(tmp_path, 1)
    saver.save(5, content(5))
    assert not (tmp_path / "step-5").exists()
    threading.Timer(0.05, go.set).start()
    assert newest(tmp_path) == tmp_path / "step-5"
    saver.wait()


def test_as_many_stay_as_asked_and_latest_names_the_last(tmp_path: Path):
    with Saver(tmp_path, 3) as saver:
        for step in range(1, 6):
            saver.save(step, content(step))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["latest", "step-3", "step-4", "step-5"]
    assert (tmp_path / "latest").read_text() == "step-5\n"


def test_leftovers_of_a_killed_save_go_at_the_start(tmp_path: Path):
    left = tmp_path / "step-9.tmp-0a1b2c3d" / "shards"
    left.mkdir(parents=True)
    (left / "x").write_bytes(b"x")
    Saver(tmp_path, 1)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_checkpoints_has_no_newest(tmp_path: Path):
    assert newest(tmp_path) is None and newest(tmp_path / "missing") is None


def test_an_error_in_the_background_comes_with_the_next_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    saver = Saver(tmp_path, 1)
    with monkeypatch.context() as patch:
        patch.setattr(disk.Disk, "write", full)
        saver.save(1, content(1))
        with pytest.raises(TrainingError, match="No space left"):
            saver.save(2, content(2))
    saver.check()  # told once
    saver.save(3, content(3))
    saver.wait()
    assert newest(tmp_path) == tmp_path / "step-3"


def full(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_an_error_that_nobody_asked_for_is_printed_at_the_end(tmp_path: Path):
    (tmp_path / "file").write_text("")
    code = (
        "from pathlib import Path; from griffin_lm.training.resume import Saver\n"
        "from tests.training.resume.values import content\n"
        f"saver = Saver(Path({str(tmp_path / 'file')!r}), 1); saver.save(1, content(1))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "could not save step 1" in done.stderr


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """The system itself refuses to write more: a disk that is full in the middle of a file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("large", ["model", "optimizer"])
def test_a_write_that_the_system_cuts_off_is_told(tmp_path: Path, large: str):
    saver = Saver(tmp_path, 1, background=False)
    saver.save(1, content(1))
    value = content(2)
    value[large]["large"] = torch.zeros(100_000)
    with (
        files_up_to(50_000),
        pytest.raises(TrainingError, match=r"could not save step 2.*File too large; step-1 is"),
    ):
        saver.save(2, value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "step-1"]
    assert same(load(tmp_path / "step-1"), content(1))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if shutil.which("mount") is None:
        pytest.skip("there is no `mount`")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a file system of our own can't be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@both
def test_a_real_full_disk_is_told_and_leaves_the_older_checkpoint(
    small_disk: Path, background: bool
):
    """Two checkpoints fit, three do not: removing what is old comes only after the new one."""
    saver, told = Saver(small_disk, 1, background), 0
    for step in range(1, 6):
        value = content(step, size=26_000 if step < 5 else 8)
        try:
            saver.save(step, value)
            saver.wait()
        except TrainingError as error:
            told += 1
            assert "No space left on device" in str(error) and f"step-{step - 1} is" in str(error)
            assert same(load(small_disk / f"step-{step - 1}"), content(step - 1, 26_000))
            break
        (small_disk / "filler").write_bytes(b"x" * 200_000 * step)
    assert told == 1
    (small_disk / "filler").unlink()
    saver.save(6, content(6))
    saver.wait()
    assert newest(small_disk) == small_disk / "step-6"


def test_a_disk_that_became_read_only_is_told(small_disk: Path):
    Saver(small_disk, 1, background=False).save(1, content(1))
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    saver = Saver(small_disk, 1, background=False)
    with pytest.raises(TrainingError, match="Read-only file system; step-1 is as it was"):
        saver.save(2, content(2))
    assert newest(small_disk) == small_disk / "step-1"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_is_told(tmp_path: Path):
    Saver(tmp_path, 1, background=False).save(1, content(1))
    tmp_path.chmod(0o500)
    try:
        saver = Saver(tmp_path, 1, background=False)
        with pytest.raises(TrainingError, match="Permission denied; step-1 is as it was"):
            saver.save(2, content(2))
        assert newest(tmp_path) == tmp_path / "step-1"
    finally:
        tmp_path.chmod(0o700)


@both
@pytest.mark.parametrize("value", [np.float64(1.0), object(), torch.Size([1])])
def test_what_loading_would_refuse_is_refused_by_place(
    tmp_path: Path, background: bool, value: Any
):
    made = content(1)
    made["feed"]["bin"] = [[1], [value]]
    kind = type(value).__name__
    with pytest.raises(TrainingError, match=rf"content\['feed'\]\['bin'\]\[1\]\[0\] is a {kind}"):
        Saver(tmp_path, 1, background).save(1, made)
    assert newest(tmp_path) is None


def test_another_config_is_refused_by_the_fields_that_differ(tmp_path: Path):
    refuse_other_config(CONFIG, CONFIG, tmp_path)
    config = ModelConfig.from_dict(CONFIG)
    other = ModelConfig.from_dict({**CONFIG, "vocab": 64, "tied": False})
    with pytest.raises(TrainingError) as caught:
        refuse_other_config(config.to_dict(), other.to_dict(), tmp_path)
    assert "vocab: 32 there, 64 here" in str(caught.value)
    assert "tied: its default there, False here" in str(caught.value)
    assert "width" not in str(caught.value)
