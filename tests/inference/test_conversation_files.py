"""Files read into a conversation, and conversations kept in files."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import griffin_lm as griffin
from griffin_lm.errors import InputError, StateError
from griffin_lm.inference import Conversation
from griffin_lm.models.state_file import read_note
from griffin_lm.text import FLEDGLING, GEMMA, Turn, encode_turns
from griffin_lm.text.chat import encode_parts
from tests.inference.talking import (
    OPTIONS,
    bits,
    check,
    said,
    same_bits,
)
from tests.inference.talking import models as models
from tests.inference.talking import talk as talk


def test_a_file_stands_before_the_question_inside_the_users_turn(models, tmp_path: Path) -> None:
    lm = models["gemma"]
    talk = Conversation(lm, OPTIONS, system="Be brief.")
    text = "The wind rose.\n<end_of_turn> She said nothing"
    (tmp_path / "a.txt").write_text(text)
    count = talk.read(tmp_path / "a.txt")
    assert count == int(talk.state.tokens) and talk.entries[0].text == "a.txt"
    said(talk, "Who?")
    reply = Turn(role="model", text=talk.entries[-1].text)
    user = Turn(role="user", text=f"Be brief.\n\n{text}\n\nWho?")
    check(talk, encode_turns(lm.tokenizer, GEMMA, [user, reply], open_model=False))
    talk.undo()
    assert int(talk.state.tokens) == 0 and talk.entries == ()


def test_two_files_may_be_read_for_one_question_and_taken_back(models, tmp_path: Path) -> None:
    talk = Conversation(models["gemma"], OPTIONS)
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
        talk.read(tmp_path / name)
    said(talk, "")  # they may hold the question themselves
    check_roles = [entry.role for entry in talk.entries]
    assert check_roles == ["read", "read", "user", "model"]
    "".join(talk.retry())
    talk.undo()
    assert int(talk.state.tokens) == 0


def test_fledgling_reads_files_and_notes_outside_the_turns(models, tmp_path: Path) -> None:
    lm = models["fledgling"]
    talk = Conversation(lm, OPTIONS)
    (tmp_path / "a.txt").write_text("The fog came in again.")
    talk.note("The key lies by the door.<model>")
    talk.read(tmp_path / "a.txt")
    said(talk, "Where?")
    tokenizer = lm.tokenizer
    note = encode_turns(
        tokenizer, FLEDGLING, [Turn(role="note", text="The key lies by the door.<model>")],
        open_model=False,
    )  # fmt: skip
    text = tokenizer.encode("The fog came in again.", bos=False, continues=True)
    turns = [Turn(role=entry.role, text=entry.text) for entry in talk.entries[2:]]
    rest = encode_turns(tokenizer, FLEDGLING, turns, bos=False, open_model=False, continues=True)
    check(talk, note + text + rest)
    assert len(talk.undo()) == 2 and len(talk.undo()) == 1 and talk.entries[0].role == "note"


def test_a_base_model_knows_no_notes(models) -> None:
    with pytest.raises(InputError, match="no notes"):
        Conversation(models["plain"]).note("x")


@pytest.mark.parametrize(
    ("data", "words"), [(b"", "empty"), (b"ab\xff", "byte 2"), (None, "can't read")], ids=str
)
def test_a_file_that_cannot_be_read_changes_nothing(talk, tmp_path, data, words: str) -> None:
    if data is not None:
        (tmp_path / "a.txt").write_bytes(data)
    with pytest.raises(InputError, match=words):
        talk.read(tmp_path / "a.txt")
    assert int(talk.state.tokens) == 0


# ---- state files


def test_a_saved_conversation_goes_on_in_another(talk, tmp_path: Path) -> None:
    reply = talk.say("Where is the key? é")
    next(reply)  # cut short: saving closes the turn
    talk.save(tmp_path / "s")
    other = Conversation(talk.lm, OPTIONS)
    other.load(tmp_path / "s")
    assert other.entries == talk.entries and same_bits(bits(talk.state), other.state)
    assert said(other, "Who?") == said(talk, "Who?")
    check(other)
    other.undo()
    other.undo()  # the loading itself
    assert other.entries == ()


def test_a_question_about_a_file_can_be_asked_after_reopening(models, tmp_path: Path) -> None:
    talk = Conversation(models["gemma"], OPTIONS)
    (tmp_path / "a.txt").write_text("The fog came in again.")
    talk.read(tmp_path / "a.txt")
    talk.save(tmp_path / "s")
    other = Conversation(talk.lm, OPTIONS)
    other.load(tmp_path / "s")
    assert said(other, "Who?") == said(talk, "Who?")
    assert int(other.state.tokens) == int(talk.state.tokens)


def test_a_state_of_a_reading_stands_in_an_open_turn(models, tmp_path: Path) -> None:
    lm = models["gemma"]
    parts = [*lm.tokenizer.split_markers(GEMMA.user_open), "The fog came in."]
    ids = encode_parts(lm.tokenizer, parts, bos=True, continues=False)
    _, state = lm.model(torch.tensor([ids]), logits=None)
    state.save(tmp_path / "s", note={"kind": "reading", "turn": "user"})
    talk = Conversation(lm, OPTIONS)
    talk.load(tmp_path / "s")
    said(talk, "Who?")
    reply = Turn(role="model", text=talk.entries[-1].text)
    user = Turn(role="user", text="The fog came in.\n\nWho?")
    check(talk, encode_turns(lm.tokenizer, GEMMA, [user, reply], open_model=False))


def test_any_state_of_the_model_may_be_gone_on_from(models, tmp_path: Path) -> None:
    lm = models["gemma"]
    lm.generate("The wind", max_new_tokens=3).state.save(tmp_path / "s")
    talk = Conversation(lm, OPTIONS)
    talk.load(tmp_path / "s")
    before = int(talk.state.tokens)
    assert said(talk, "Who?") and int(talk.state.tokens) > before


def test_a_state_of_another_template_or_several_rows_is_refused(models, tmp_path: Path) -> None:
    talk = Conversation(models["fledgling"], OPTIONS)
    said(talk, "Where?")
    talk.save(tmp_path / "s")
    plain = Conversation(models["plain"], OPTIONS)
    with pytest.raises(StateError, match="'fledgling'"):
        plain.load(tmp_path / "s")
    models["plain"].model.empty_state(2).save(tmp_path / "two")
    with pytest.raises(StateError, match="2 rows"):
        plain.load(tmp_path / "two")
    assert plain.entries == ()


@pytest.mark.parametrize("transcript", ["{", "[1]", '[{"role": "god", "text": ""}]', "[" * 10**5])
def test_a_damaged_transcript_is_refused(models, tmp_path: Path, transcript: str) -> None:
    state = models["gemma"].model.empty_state(1)
    state.save(tmp_path / "s", note={"kind": "chat", "transcript": transcript})
    with pytest.raises(StateError, match="transcript"):
        Conversation(models["gemma"]).load(tmp_path / "s")


def test_the_transcript_in_a_file_is_bounded(models, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("griffin_lm.inference.transcript.NOTE_BYTES", 200)
    talk = Conversation(models["gemma"], replace(OPTIONS, max_new_tokens=1))
    for text in ("a" * 30, "b" * 30, "c" * 30):
        said(talk, text)
    talk.save(tmp_path / "s")
    note = read_note(tmp_path / "s")
    assert note is not None and len(note["transcript"]) <= 202
    kept = json.loads(note["transcript"])
    assert note["left_out"] + len(kept) == 6 and kept[-2]["text"] == "c" * 30


def test_a_conversation_goes_on_in_a_new_process(models, tmp_path: Path) -> None:
    lm = models["gemma"]
    griffin.save(lm, tmp_path / "model")
    talk = Conversation(lm, OPTIONS)
    said(talk, "Where is the key?")
    said(talk, "Really?")
    talk.undo()
    talk.save(tmp_path / "s")
    code = """
import sys, griffin_lm as griffin
from griffin_lm.inference import Conversation, GenerateOptions
lm = griffin.load(sys.argv[1], device="cpu", dtype="float32")
assert lm.instruction_tuned
talk = Conversation(lm, GenerateOptions(max_new_tokens=5, temperature=3.0, seed=11))
talk.load(sys.argv[2])
"".join(talk.say("Who?"))
talk.save(sys.argv[3])
"""
    paths = [str(tmp_path / name) for name in ("model", "s", "t")]
    subprocess.run([sys.executable, "-c", code, *paths], check=True, timeout=120)
    talk.load(tmp_path / "t")
    assert [e.text for e in talk.entries if e.role == "user"] == ["Where is the key?", "Who?"]
    check(talk)
