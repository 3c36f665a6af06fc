"""Sessions: what returned is on disk, forks and marks share files, one writer at a time."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from griffin_lm.errors import InputError, SessionError, StateError
from griffin_lm.inference import LanguageModel, read_tokens
from griffin_lm.inference.sessions import Sessions, Store
from griffin_lm.inference.sessions import store as store_module
from griffin_lm.models import State, build

TEXT = "The wind rose over the old house, and nobody was there to hear it."


@pytest.fixture
def sessions(lm: LanguageModel, tmp_path: Path) -> Sessions:
    def read(ids: list[int], state: State | None) -> State:
        if state is not None and state.pending is not None:
            ids = [*state.pending.tolist(), *ids]
            state = state[:]
            state.pending = None
        return read_tokens(lm.model, ids, state)

    return Sessions(lm, Store(tmp_path / "states"), read, marks=3)


def next_tokens(sessions: Sessions, name: str, owner: str = "") -> list[int]:
    state, _ = sessions.state(owner, name)
    return sessions.lm.generate("", state=state, max_new_tokens=5).tokens


def test_a_session_continues_as_its_text_does(sessions: Sessions) -> None:
    sessions.create("", "s")
    info = sessions.append("", "s", [TEXT[:20], "", TEXT[20:]])
    assert info.tokens == len(sessions.lm.encode(TEXT))
    assert next_tokens(sessions, "s") == sessions.lm.generate(TEXT, max_new_tokens=5).tokens
    assert [each.name for each in sessions.every("")] == ["s"]


def test_long_texts_are_read_in_parts_with_the_same_ids(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts: list[list[int]] = []
    real = sessions.read
    monkeypatch.setattr("griffin_lm.inference.sessions.sessions.PART", 7)
    sessions.read = lambda ids, state: (parts.append(ids), real(ids, state))[1]
    sessions.create("", "s")
    for text in (TEXT, [TEXT]):  # a character at a time; at once
        sessions.append("", "s", text)
        assert [each for part in parts for each in part] == sessions.lm.encode(
            TEXT, bos=text is TEXT
        )
        assert all(len(part) == 7 for part in parts[:-1]) and 1 <= len(parts[-1]) <= 7
        parts.clear()


def test_a_reading_can_be_ended_after_any_part(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("griffin_lm.inference.sessions.sessions.PART", 7)
    sessions.create("", "s")
    seen: list[int] = []

    def going_on(state: State) -> bool:
        seen.append(int(state.tokens))
        return len(seen) < 2

    info = sessions.append("", "s", [TEXT], going_on=going_on)
    assert seen == [7, 14] and info.tokens == 14 and info.marks == (0,)
    state, _ = sessions.state("", "s")
    alone = read_tokens(sessions.lm.model, sessions.lm.encode(TEXT)[:14], None)
    ids = [sessions.lm.generate("", state=each, max_new_tokens=5).tokens for each in (state, alone)]
    assert ids[0] == ids[1]


def test_a_note_of_a_model_that_was_taught_none_is_a_line(sessions: Sessions) -> None:
    assert not sessions.lm.instruction_tuned
    sessions.create("", "s")
    info = sessions.append("", "s", [" a", " note "], note=True)
    assert info.tokens == len(sessions.lm.encode("\na note\n"))
    with pytest.raises(InputError, match="empty"):
        sessions.append("", "s", ["  "], note=True)


def test_a_fork_goes_its_own_way(sessions: Sessions) -> None:
    sessions.create("", "s")
    sessions.append("", "s", [TEXT])
    before = next_tokens(sessions, "s")
    fork = sessions.fork("", "s", "t")
    assert next_tokens(sessions, "t") == before
    assert fork.tokens == sessions.info("", "s").tokens
    sessions.append("", "t", ["And then it was quiet."])
    assert next_tokens(sessions, "s") == before != next_tokens(sessions, "t")
    head = sessions.store.head("", "t")
    assert head.stat().st_nlink == 1 and sessions.store.head("", "s").stat().st_nlink == 2
    with pytest.raises(SessionError, match="already"):
        sessions.fork("", "s", "t")


def test_marks_bring_a_session_back(sessions: Sessions) -> None:
    sessions.create("", "s")
    tokens, outs = [], []
    for part in ("one. ", "two. ", "three. ", "four. ", "five. "):
        tokens.append(sessions.append("", "s", [part]).tokens)
        outs.append(next_tokens(sessions, "s"))
    assert sessions.info("", "s").marks == tuple(tokens[1:4])  # three are kept
    with pytest.raises(InputError, match=f"nearest is at {tokens[1]}"):
        sessions.rewind("", "s", tokens[0])
    back = sessions.rewind("", "s", tokens[2])
    assert (back.tokens, back.marks) == (tokens[2], (tokens[1],))
    assert next_tokens(sessions, "s") == outs[2]
    sessions.append("", "s", ["four. "])
    assert next_tokens(sessions, "s") == outs[3]


def test_a_session_goes_elsewhere_as_a_file(sessions: Sessions, tmp_path: Path) -> None:
    sessions.create("", "s")
    sessions.append("", "s", [TEXT])
    file = sessions.store.head("", "s")
    sessions.upload("other", "copy", file)
    assert next_tokens(sessions, "copy", "other") == next_tokens(sessions, "s")
    (tmp_path / "damaged").write_bytes(file.read_bytes()[:-9])
    with pytest.raises(StateError):
        sessions.upload("", "u", tmp_path / "damaged")
    hawk = build("tiny-hawk")
    hawk.empty_state(1).save(tmp_path / "foreign")
    with pytest.raises(StateError):
        sessions.upload("", "u", tmp_path / "foreign")
    assert [each.name for each in sessions.every("")] == ["s"]


def test_owners_do_not_see_each_other(sessions: Sessions) -> None:
    sessions.create("alice", "s")
    with pytest.raises(SessionError):
        sessions.info("bob", "s")
    sessions.create("bob", "s")
    sessions.delete("bob", "s")
    assert sessions.info("alice", "s").name == "s" and sessions.every("bob") == ()
    names = [path.name for path in sessions.store.folder.rglob("*")]
    assert not any("alice" in name for name in names)


@pytest.mark.parametrize("name", ["", "..", "a/b", "../x", "/etc", ".hidden", "a" * 65, "a\n", "ä"])
def test_a_name_leads_nowhere_else(sessions: Sessions, name: str) -> None:
    for call in (sessions.info, sessions.delete, sessions.state):
        with pytest.raises(InputError, match="no name"):
            call("", name)
    with pytest.raises(InputError, match="no name"):
        sessions.store.place("", name)


def test_what_fails_leaves_the_session_as_it_was(sessions: Sessions) -> None:
    sessions.create("", "s")
    sessions.append("", "s", [TEXT])
    before = sessions.info("", "s")

    def broken():
        yield "some text"
        raise OSError("the client has gone")

    with pytest.raises(OSError):
        sessions.append("", "s", broken())
    with pytest.raises(InputError):
        sessions.append("", "s", [])
    assert sessions.info("", "s") == before
    with pytest.raises(SessionError):
        sessions.append("", "missing", ["x"])
    assert not sessions.store.place("", "missing").exists()


def test_two_never_change_one_session(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(store_module, "_PATIENCE", 0.05)
    other = Store(tmp_path / "states")
    sessions.create("", "s")
    with other.lease("", "s"), pytest.raises(SessionError, match="someone else"):
        sessions.append("", "s", [TEXT])
    sessions.append("", "s", [TEXT])


KILLED = """
import sys
from pathlib import Path
import griffin_lm as griffin
from griffin_lm.inference.sessions import Store
model = griffin.build("tiny-griffin", seed=1)
store = Store(Path(sys.argv[1]))
state = model.empty_state(1)
count = 0
while True:
    count += 1
    with store.lease("", "s", new=count == 1) as place:
        if count > 1:
            store.mark(place, count - 1, 3)
        store.write(place, state, {"tokens": count})
    print(count, flush=True)
"""


def test_a_process_that_is_killed_leaves_what_it_had_said(tmp_path: Path) -> None:
    store, model = Store(tmp_path), build("tiny-griffin", seed=1)
    run = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert run.stdout is not None
    for line in run.stdout:
        if int(line) >= 8:
            break
    os.kill(run.pid, signal.SIGKILL)
    said = [8, *map(int, run.stdout.read().split())][-1]
    run.wait()
    run.stdout.close()
    from griffin_lm.models.state_file import read_note

    note = read_note(store.head("", "s"))
    assert note is not None and note["tokens"] in (said, said + 1)
    assert torch.equal(State.load(store.head("", "s"), model).read, torch.zeros(1).long())
    with store.lease("", "s"):  # the dead process's lease is gone
        assert len(store.marks("", "s")) <= 4


def test_what_a_killed_process_left_half_written_goes_with_the_next_change(
    sessions: Sessions,
) -> None:
    sessions.create("", "s")
    place = sessions.store.place("", "s")
    (place / ".head.safetensors.0a1b2c3d").write_bytes(b"half of a state")
    assert sessions.info("", "s").tokens == 0
    sessions.append("", "s", [TEXT])
    assert not [each for each in os.listdir(place) if each.startswith(".")]
    assert sessions.info("", "s").tokens == len(sessions.lm.encode(TEXT))
