"""A damaged checkpoint is refused by the file's name, and the one before it is used."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from griffin_lm.errors import CheckpointCorrupt, CheckpointError
from griffin_lm.training.resume import Saver, load, manifest, newest
from tests.training.resume.values import content, same

FILES = ["config.json", "model.safetensors", "training.pt", "manifest.json"]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Steps 1 and 2."""
    with Saver(tmp_path, 2) as saver:
        saver.save(1, content(1))
        saver.save(2, content(2))
    return tmp_path


def flipped(share: float) -> Callable[[Path], object]:
    def damage(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[int(share * (len(data) - 1))] ^= 1
        path.write_bytes(data)

    return damage


def cut(share: float) -> Callable[[Path], object]:
    def damage(path: Path) -> None:
        data = path.read_bytes()
        path.write_bytes(data[: int(share * (len(data) - 1))])

    return damage


DAMAGE = {
    **{f"a bit flipped at {share}": flipped(share) for share in (0.0, 0.1, 0.3, 0.5, 0.8, 0.99)},
    **{f"cut off at {share}": cut(share) for share in (0.0, 0.5, 1.0)},
    "a byte more": lambda path: path.write_bytes(path.read_bytes() + b"x"),
    "deleted": Path.unlink,
    "of the step before": lambda path: shutil.copy(path.parents[1] / "step-1" / path.name, path),
}
SAME_IN_BOTH = ("config.json", "of the step before")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", DAMAGE.keys())
def test_a_damaged_file_is_named_and_the_step_before_is_used(out: Path, name: str, damage: str):
    path = out / "step-2" / name
    DAMAGE[damage](path)
    if (name, damage) == SAME_IN_BOTH:
        assert load(out / "step-2")["progress"] == {"steps": 2}
        return
    with pytest.raises(CheckpointCorrupt, match=name):
        load(out / "step-2")
    said: list[str] = []
    assert newest(out, said.append) == out / "step-1"
    assert len(said) == 1 and said[0].startswith("passed over step-2: ") and name in said[0]
    assert same(load(out / "step-1"), content(1))


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        ({"step": 3}, "edited"),
        ({"griffin_lm": "9.9"}, "edited"),
        ({"format": "other"}, "no manifest"),
        ({"version": "1"}, "no manifest"),
        ({"files": {}}, "edited"),
        ({"more": 1}, "edited"),
    ],
)
def test_an_edited_manifest_is_refused(out: Path, edit: dict[str, Any], reason: str):
    path = out / "step-2" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | edit))
    with pytest.raises(CheckpointCorrupt, match=rf"manifest\.json.*{reason}"):
        load(out / "step-2")


def test_a_manifest_may_not_name_files_elsewhere(out: Path, monkeypatch: pytest.MonkeyPatch):
    path = out / "step-2" / "manifest.json"
    made = json.loads(path.read_text())
    made["files"]["../step-1/training.pt"] = {"bytes": 1, "sha256": ""}
    monkeypatch.setattr(manifest, "_checksum", lambda made: made["checksum"])
    path.write_text(json.dumps(made))
    with pytest.raises(CheckpointCorrupt, match="own folder"):
        load(out / "step-2")


def test_a_later_release_s_checkpoint_is_not_passed_over(out: Path):
    path = out / "step-2" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 2}))
    with pytest.raises(CheckpointError, match="upgrade griffin-lm"):
        newest(out)


def test_a_folder_under_another_number_is_refused(out: Path):
    (out / "step-2").rename(out / "step-3")
    said: list[str] = []
    assert newest(out, said.append) == out / "step-1"
    assert "is of step 2, not of step-3" in said[1]
    assert said[0].endswith("names step-2, which is not there")


def test_a_run_without_any_good_one_does_not_start_again_by_itself(out: Path):
    for step in (1, 2):
        (out / f"step-{step}" / "training.pt").unlink()
    with pytest.raises(CheckpointCorrupt, match="none of the 2 checkpoints"):
        newest(out, lambda _: None)


def test_a_damaged_one_is_replaced_when_its_step_comes_again(out: Path):
    (out / "step-2" / "training.pt").unlink()
    Saver(out, 2, background=False).save(2, content(2))
    assert newest(out) == out / "step-2"
    assert same(load(out / "step-2"), content(2))


def test_what_latest_says_wrongly_does_no_harm(out: Path):
    for text in (b"", b"../elsewhere", b"\xff\xfe", b"step-x"):
        (out / "latest").write_bytes(text)
        assert newest(out) == out / "step-2"
