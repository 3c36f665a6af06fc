"""The note in a state file: kept with the state, read without the model, absent from old files."""

import json

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from griffin_lm.errors import InputError, StateError
from griffin_lm.models import State
from griffin_lm.models.state_file import read_note


@pytest.fixture
def path(tmp_path):
    return tmp_path / "some.state"


def test_a_note_comes_back_and_the_state_is_the_same(tiny_griffin, path) -> None:
    note = {"kind": "reading", "bytes": 10**12, "finished": False, "source": "Krieg und Frieden é"}
    state = tiny_griffin.empty_state(1)
    state.save(path, note=note)
    assert read_note(path) == note
    assert State.load(path, tiny_griffin).nbytes == state.nbytes


def test_a_state_saved_without_a_note_has_none(tiny_griffin, path) -> None:
    tiny_griffin.empty_state(1).save(path)
    assert read_note(path) is None
    with safe_open(path, "pt") as file:
        assert "note" not in json.loads(file.metadata()["griffin"])


@pytest.mark.parametrize("value", [1.5, None, ["a"], {"a": 1}])
def test_a_note_holds_plain_values_only(tiny_griffin, path, value) -> None:
    with pytest.raises(InputError, match="'what'"):
        tiny_griffin.empty_state(1).save(path, note={"what": value})
    assert not path.exists()


def test_a_note_that_is_damaged_and_files_that_are_no_states_are_refused(
    tiny_griffin, path, tmp_path
) -> None:
    tiny_griffin.empty_state(1).save(path, note={"a": 1})
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["griffin"])
    header["note"] = [1, 2]
    save_file(load_file(path), path, metadata={"griffin": json.dumps(header)})
    with pytest.raises(StateError, match="note is damaged"):
        read_note(path)
    with pytest.raises(StateError, match="no state at"):
        read_note(tmp_path / "none")
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(StateError, match="not a whole state file"):
        read_note(path)
