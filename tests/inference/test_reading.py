"""Reading texts into states: whole or in parts, interrupted and resumed, from files and streams."""

import io
import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import griffin_lm as griffin
from griffin_lm.errors import InputError, StateError
from griffin_lm.inference import LanguageModel, Reading, read_text, text_reader, text_source
from griffin_lm.inference.reading import read_rows
from griffin_lm.models import State
from griffin_lm.models.state_file import read_note
from griffin_lm.text import GEMMA, Turn, encode_turns, encoder
from tests.inference.vocabulary import SENTENCES, vocabulary

TEXT = (
    " ".join(SENTENCES * 3) + "\nÜber den Fluß — 日本語 \U0001f600, and so on.\n" + SENTENCES[0] * 2
)
CHUNK = 32


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A text of a page is cut in many places, as a book would be."""
    monkeypatch.setattr(encoder, "BLOCK", 100)
    monkeypatch.setattr(text_source, "BLOCK", 61)


@pytest.fixture
def fed(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The ids of every chunk that goes through the model."""
    chunks: list[list[int]] = []

    def noting(model, rows, state, **options):
        chunks.append(list(rows[0]))
        return read_rows(model, rows, state, **options)

    monkeypatch.setattr(text_reader, "read_rows", noting)
    return chunks


@pytest.fixture
def book(tmp_path: Path) -> Path:
    path = tmp_path / "book.txt"
    path.write_bytes(TEXT.encode())
    return path


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.state"


@pytest.fixture(scope="module")
def tuned(lm: LanguageModel) -> LanguageModel:
    """The same model, as if it was taught to take turns."""
    return LanguageModel(lm.model, lm.tokenizer, instruction_tuned=True)


def tensors(state: State) -> list[torch.Tensor]:
    columns = [state.read, state.position, state.due, state.pending]
    return [t for layer in state.layers for t in layer] + [t for t in columns if t is not None]


def same(one: State | None, other: State | None) -> bool:
    assert one is not None and other is not None
    return all(torch.equal(a, b) for a, b in zip(tensors(one), tensors(other), strict=True))


def after_chunks(count: int):
    """(progress, stop): asks to leave after so many chunks."""
    seen: list[Reading] = []
    return seen.append, lambda: len(seen) >= count


def all_ids(chunks: list[list[int]], state: State | None) -> list[int]:
    assert state is not None and state.pending is not None
    return [token for chunk in chunks for token in chunk] + state.pending.tolist()


def test_the_ids_are_those_of_the_whole_text_in_full_chunks(lm, book, fed) -> None:
    done = read_text(lm, book, chunk=CHUNK)
    assert all_ids(fed, done.state) == lm.encode(TEXT)
    assert {len(chunk) for chunk in fed[:-1]} == {CHUNK}
    assert done.finished and done.tokens == done.new_tokens == len(lm.encode(TEXT))
    assert done.bytes == done.size == len(TEXT.encode())
    going_on = lm.generate("", state=done.state, max_new_tokens=5)
    assert going_on.tokens == lm.generate(TEXT, max_new_tokens=5).tokens


@pytest.mark.parametrize("kind", ["raw", "turn", "markers", "after a state"])
def test_interrupted_anywhere_and_resumed_it_is_equal_to_the_bit(
    lm, tuned, tmp_path, fed, kind
) -> None:
    model = tuned if kind == "turn" else lm
    text = TEXT.replace(". ", ".<note>", 3) if kind == "markers" else TEXT
    book, first = tmp_path / "book", None
    book.write_bytes(text.encode())
    if kind == "after a state":
        first = tmp_path / "first.state"
        lm.generate("The road was", max_new_tokens=4).state.save(first)
    options = {"chunk": CHUNK, "markers": kind == "markers", "state": first}
    whole = read_text(model, book, save=tmp_path / "whole", **options)
    ids = all_ids(fed, whole.state)
    for every in (1, 4) if kind == "turn" else (5,):
        out = tmp_path / f"out{every}"
        fed.clear()
        runs = 0
        done = None
        while done is None or not done.finished:
            progress, stop = after_chunks(every)
            done = read_text(model, book, save=out, progress=progress, stop=stop, **options)
            runs += 1
            assert runs < 500 and out.exists()
        assert runs > 300 // (CHUNK * every)
        assert all_ids(fed, done.state) == ids
        assert same(done.state, whole.state)
        assert same(State.load(out, model), whole.state)
        assert done.tokens == whole.tokens
        assert read_note(out) == read_note(tmp_path / "whole")


def test_a_kill_between_two_saves_loses_nothing_but_time(lm, book, out, fed) -> None:
    whole = read_text(lm, book, chunk=CHUNK)
    fed.clear()

    class Killed(Exception):
        pass

    chunks = 0

    def kill(_: Reading) -> None:
        nonlocal chunks
        chunks += 1
        if chunks == 9:
            raise Killed

    with pytest.raises(Killed):
        read_text(lm, book, save=out, save_every=0.0, chunk=CHUNK, progress=kill)
    fed.clear()
    done = read_text(lm, book, save=out, chunk=CHUNK)
    assert done.resumed == 8 * CHUNK
    assert same(done.state, whole.state)


def test_a_half_read_state_can_be_asked_and_gone_on_from(lm, book, out) -> None:
    progress, stop = after_chunks(3)
    half = read_text(lm, book, save=out, chunk=CHUNK, progress=progress, stop=stop)
    assert not half.finished and half.tokens == 3 * CHUNK + 1
    ids = lm.encode(TEXT)[: half.tokens]
    state = lm.model(torch.tensor([ids]))[1]
    more = lm.generate("", state=State.load(out, lm), max_new_tokens=4).tokens
    logits = lm.model(torch.tensor([ids]), logits="last")[0]
    assert more[0] == int(logits.argmax()) and int(state.tokens) == half.tokens


def test_a_text_is_read_inside_a_users_turn_or_raw(tuned, book, fed) -> None:
    done = read_text(tuned, book, chunk=CHUNK)
    turns = [Turn(role="user", text=TEXT)]
    template = tuned.tokenizer.turn
    assert all_ids(fed, done.state) == encode_turns(
        tuned.tokenizer, template, turns, open_model=False
    )
    fed.clear()
    raw = read_text(tuned, book, chunk=CHUNK, raw=True)
    assert all_ids(fed, raw.state) == tuned.encode(TEXT)


def test_the_words_of_a_turns_opening_join_the_text(tmp_path, out, fed) -> None:
    gemma = vocabulary(markers=("<start_of_turn>", "<end_of_turn>"))
    config = replace(griffin.PRESETS["tiny-griffin"], vocab=gemma.vocab_size)
    model = LanguageModel(griffin.build(config), gemma, instruction_tuned=True)
    book = tmp_path / "book"
    text = "\n\nser\nuser" + TEXT
    book.write_bytes(text.encode())
    progress, stop = after_chunks(1)
    read_text(model, book, save=out, chunk=CHUNK, progress=progress, stop=stop)
    done = read_text(model, book, save=out, chunk=CHUNK)
    expected = encode_turns(gemma, GEMMA, [Turn(role="user", text=text)], open_model=False)
    closing = gemma.special_id("<end_of_turn>")
    assert all_ids(fed, done.state) == expected[: expected.index(closing)]
    assert read_note(out)["turn"] == "user"


def test_an_open_turn_is_gone_on_in(tuned, book, tmp_path, fed) -> None:
    read_text(tuned, book, save=tmp_path / "one", chunk=CHUNK)
    fed.clear()
    second = tmp_path / "second.txt"
    second.write_text("And more of it. " * 9)
    done = read_text(tuned, second, state=tmp_path / "one", save=tmp_path / "two", chunk=CHUNK)
    user = tuned.tokenizer.special_id("<user>")
    assert user not in all_ids(fed, done.state)
    assert read_note(tmp_path / "two")["turn"] == "user"
    # a state without a note stands outside turns
    fed.clear()
    plain = tuned.generate("Once", max_new_tokens=2).state
    outside = read_text(tuned, second, state=plain, chunk=CHUNK)
    assert all_ids(fed, outside.state).count(user) == 1


def test_what_is_saved_under_the_name_already_is_not_overwritten(lm, book, out, tmp_path) -> None:
    read_text(lm, book, save=out)
    kept = out.read_bytes()
    other = tmp_path / "other.txt"
    other.write_text("Another text altogether. " * 80)
    with pytest.raises(StateError, match=rf"a reading of 'book.txt'.*add --state {out}"):
        read_text(lm, other, save=out)
    book.write_bytes(b"X" + book.read_bytes()[1:])
    with pytest.raises(StateError, match="does not begin with"):
        read_text(lm, book, save=out)
    assert out.read_bytes() == kept
    lm.generate("x", max_new_tokens=1).state.save(out)
    with pytest.raises(StateError, match="holds something else"):
        read_text(lm, book, save=out)


def test_another_beginning_or_other_options_are_refused(lm, book, out, tmp_path) -> None:
    progress, stop = after_chunks(2)
    read_text(lm, book, save=out, chunk=CHUNK, progress=progress, stop=stop)
    lm.generate("x", max_new_tokens=1).state.save(tmp_path / "first")
    with pytest.raises(StateError, match="begun from another state"):
        read_text(lm, book, save=out, state=tmp_path / "first")
    with pytest.raises(InputError, match="without --raw"):
        read_text(lm, book, save=out, raw=True)


def test_a_state_may_be_gone_on_from_under_its_own_name(lm, book, out, tmp_path, fed) -> None:
    read_text(lm, book, save=out, chunk=CHUNK)
    second = tmp_path / "second.txt"
    second.write_text(" The end of it. " * 30)
    progress, stop = after_chunks(2)
    half = read_text(lm, second, state=out, save=out, chunk=CHUNK, progress=progress, stop=stop)
    assert not half.finished
    done = read_text(lm, second, state=out, save=out, chunk=CHUNK)  # the same command: goes on
    assert done.resumed == 2 * CHUNK
    more = lm.tokenizer.encode(second.read_text(), bos=False, continues=True)
    assert all_ids(fed, done.state) == lm.encode(TEXT) + more


def test_a_file_that_was_read_to_its_end_is_not_read_again(lm, book, out, fed) -> None:
    first = read_text(lm, book, save=out, chunk=CHUNK)
    fed.clear()
    again = read_text(lm, book, save=out, chunk=CHUNK)
    assert fed == [] and again.finished and again.new_tokens == 0
    assert same(again.state, first.state)


def test_a_file_that_has_grown_is_read_on(lm, book, out, fed) -> None:
    read_text(lm, book, save=out, chunk=CHUNK)
    added = " The fog came in again. " * 30
    with book.open("ab") as file:
        file.write(added.encode())
    progress, stop = after_chunks(2)
    read_text(lm, book, save=out, chunk=CHUNK, progress=progress, stop=stop)
    done = read_text(lm, book, save=out, chunk=CHUNK)
    more = lm.tokenizer.encode(added, bos=False, continues=True)
    assert all_ids(fed, done.state) == lm.encode(TEXT) + more
    assert done.finished and done.bytes == book.stat().st_size


def test_a_stream_that_is_sent_again_is_resumed_after_the_same_bytes(lm, out, fed) -> None:
    whole = read_text(lm, io.BytesIO(TEXT.encode()), chunk=CHUNK)
    fed.clear()
    progress, stop = after_chunks(4)
    read_text(lm, io.BytesIO(TEXT.encode()), save=out, chunk=CHUNK, progress=progress, stop=stop)
    done = read_text(lm, io.BytesIO(TEXT.encode()), save=out, chunk=CHUNK)
    assert done.resumed == 4 * CHUNK and same(done.state, whole.state)
    assert all_ids(fed, done.state) == lm.encode(TEXT)
    with pytest.raises(StateError, match="a reading of '-'"):
        read_text(lm, io.BytesIO(b"Other words. " * 99), save=out, chunk=CHUNK)


def until(true) -> None:
    """Waits for something that happens soon; a test that waits in vain fails."""
    for _ in range(3000):
        if true():
            return
        time.sleep(0.01)
    raise AssertionError("it did not happen within 30 seconds")


def test_what_a_paused_stream_has_brought_is_read_without_waiting_for_more(
    lm, out, monkeypatch
) -> None:
    monkeypatch.setattr(text_source, "PAUSE", 0.02)
    reading_end, writing_end = os.pipe()
    seen: list[Reading] = []
    leave = threading.Event()
    results: list[Reading] = []

    def reads() -> None:
        with open(reading_end, "rb") as stream:
            done = read_text(lm, stream, save=out, progress=seen.append, stop=leave.is_set)
            results.append(done)

    thread = threading.Thread(target=reads)
    thread.start()
    first = "She said nothing, for there was nothing to say. She"
    os.write(writing_end, first.encode())
    until(lambda: seen and seen[-1].tokens >= len(lm.encode(first)) - 3)
    second = " wrote: the key lies beneath the stone."
    os.write(writing_end, second.encode())
    # all but the words at the end, which the next words might still join
    until(lambda: seen[-1].tokens >= len(lm.encode(first + second)) - 3)
    time.sleep(0.1)
    leave.set()
    thread.join()
    os.close(writing_end)
    # left while it paused: all that it brought counts as the text, its last words too
    assert results[0].finished
    assert results[0].tokens == len(lm.encode(first + second))
    whole = lm.model(torch.tensor([lm.encode(first + second)[:-1]]))[1]
    for mine, theirs in zip(tensors(results[0].state), tensors(whole), strict=False):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)


def test_wrong_bytes_are_named_and_what_was_read_before_them_is_saved(lm, tmp_path, out) -> None:
    book = tmp_path / "latin1.txt"
    book.write_bytes(TEXT.encode() + b"caf\xe9 " + TEXT.encode())
    place = len(TEXT.encode()) + 3
    with pytest.raises(InputError, match=rf"latin1.txt is not UTF-8: byte {place} .*replace"):
        read_text(lm, book, save=out, chunk=CHUNK)
    kept = State.load(out, lm)
    assert CHUNK < int(kept.tokens) < len(lm.encode(TEXT)) + 1
    done = read_text(lm, book, save=out, chunk=CHUNK, errors="replace")
    assert done.resumed >= CHUNK and done.finished
    assert done.tokens == len(lm.encode(book.read_text("utf-8", errors="replace")))


@pytest.mark.parametrize("content", [b"", b"\xff"])
def test_texts_with_nothing_in_them_are_refused(lm, tmp_path, out, content) -> None:
    path = tmp_path / "empty.txt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"empty.txt is (empty|not UTF-8)"):
        read_text(lm, path, save=out)
    assert not out.exists()


def test_missing_files_and_folders_are_named(lm, book, tmp_path) -> None:
    with pytest.raises(InputError, match="can't read"):
        read_text(lm, tmp_path / "none.txt")
    with pytest.raises(StateError, match="no folder"):
        read_text(lm, book, save=tmp_path / "none" / "state")


def test_a_bookmark_that_is_damaged_is_refused(lm, book, out) -> None:
    read_text(lm, book, save=out)
    note = read_note(out)
    for change in ({"skip": -1}, {"bytes": 10**9}, {"where": "ELSEWHERE"}, {"raw": "yes"}):
        State.load(out, lm).save(out, note=note | change)
        with pytest.raises(StateError, match="damaged"):
            read_text(lm, book, save=out)


def test_progress_tells_tokens_bytes_and_the_states_size(lm, book) -> None:
    seen: list[Reading] = []
    done = read_text(lm, book, chunk=CHUNK, progress=seen.append)
    assert [now.tokens for now in seen] == sorted(now.tokens for now in seen)
    sizes = [now.bytes for now in seen]
    assert sizes == sorted(sizes) and sizes[-1] <= done.bytes == len(TEXT.encode())
    assert abs(sizes[len(sizes) // 2] / done.bytes - 0.5) < 0.1
    assert len({now.state.nbytes for now in seen if now.state is not None}) == 1
