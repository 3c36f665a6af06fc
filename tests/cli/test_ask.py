"""`griffin ask`: on a fork, in the right turn, and fledgling finds a note that it read."""

import json
from pathlib import Path

import pytest

import griffin_lm as griffin
from griffin_lm.errors import InputError
from griffin_lm.inference import LanguageModel, ask, read_text
from griffin_lm.inference.asking import settled
from griffin_lm.models import State
from griffin_lm.models.state_file import read_note
from griffin_lm.text import Turn, encode_turns

FP32 = ("--dtype", "float32", "--device", "cpu")
TEXT = "It was late in the evening when the wind rose. The place is London. " * 5
QUESTION = "What is the place?"


@pytest.fixture(scope="module")
def tuned(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint, saved as one that takes turns."""
    lm = griffin.load(checkpoint, device="cpu", dtype="float32")
    folder = tmp_path_factory.mktemp("tuned") / "tiny"
    griffin.save(LanguageModel(lm.model, lm.tokenizer, instruction_tuned=True), folder)
    return folder


@pytest.fixture
def book(tmp_path: Path) -> Path:
    path = tmp_path / "book.txt"
    path.write_text(TEXT)
    return path


def answer(lm: LanguageModel, ids: list[int], count: int) -> list[int]:
    """The likeliest tokens after these, until one ends the generation."""
    state = griffin.State.concat([lm.model.empty_state(1)])
    state = read_ids(lm, state, ids)
    return lm.generate("", state=state, max_new_tokens=count).tokens


def read_ids(lm: LanguageModel, state: State, ids: list[int]) -> State:
    import torch

    return lm.model(torch.tensor([ids[:-1]]), state=state)[1].with_pending(ids[-1:])


def test_the_question_ends_the_turn_that_the_text_stands_in(run, tuned, book, tmp_path) -> None:
    lm = griffin.load(tuned, device="cpu", dtype="float32")
    assert lm.instruction_tuned
    out = tmp_path / "out"
    assert run("read", tuned, book, "--save-state", out, *FP32).code == 0
    before = out.read_bytes()
    files = ("--json", tmp_path / "json", "--save-state", tmp_path / "fork")
    result = run("ask", tuned, QUESTION, "--state", out, "--max-new-tokens", 9, *files, *FP32)
    assert result.code == 0, result.err
    assert out.read_bytes() == before
    template = lm.tokenizer.turn
    assert template is not None
    read = encode_turns(lm.tokenizer, template, [Turn(role="user", text=TEXT)], open_model=False)
    asked = lm.tokenizer.encode(f"\n\n{QUESTION}", bos=False, continues=True)
    ids = [*read, *asked, lm.tokenizer.special_id("<model>")]
    figures = json.loads((tmp_path / "json").read_text())
    assert figures["tokens"] == answer(lm, ids, 9)
    assert result.out == figures["answer"] + "\n"
    assert figures["instruction_tuned"]
    # the fork stands after the model's closed turn
    fork = State.load(tmp_path / "fork", lm)
    assert fork.pending.tolist() == [lm.tokenizer.special_id("<end>")]
    assert (read_note(tmp_path / "fork") or {})["turn"] == "none"
    spoken = figures["tokens"]
    closed = [*ids, *spoken] if spoken[-1] == fork.pending.item() else [*ids, *spoken, 0]
    assert fork.tokens.item() == len(closed)


def test_a_state_outside_turns_is_asked_in_a_turn_of_its_own(run, tuned, book, tmp_path) -> None:
    lm = griffin.load(tuned, device="cpu", dtype="float32")
    out = tmp_path / "out"
    assert run("read", tuned, book, "--raw", "--save-state", out, *FP32).code == 0
    words = ("ask", tuned, QUESTION, "--state", out, "--max-new-tokens", 9)
    result = run(*words, "--json", tmp_path / "json", *FP32)
    template = lm.tokenizer.turn
    assert template is not None
    turns = [Turn(role="user", text=QUESTION)]
    ids = lm.encode(TEXT) + encode_turns(lm.tokenizer, template, turns, bos=False, continues=True)
    assert json.loads((tmp_path / "json").read_text())["tokens"] == answer(lm, ids, 9)
    assert result.code == 0


def test_a_base_model_goes_on_with_the_question_as_text(run, checkpoint, book, tmp_path) -> None:
    lm = griffin.load(checkpoint, device="cpu", dtype="float32")
    assert not lm.instruction_tuned
    out = tmp_path / "out"
    assert run("read", checkpoint, book, "--save-state", out, *FP32).code == 0
    result = run("ask", checkpoint, "The place", "--state", out, "--max-new-tokens", 9, *FP32)
    ids = lm.encode(TEXT) + lm.tokenizer.encode("The place", bos=False, continues=True)
    text = lm.tokenizer.decode(answer(lm, ids, 9), continues=True)
    assert result.out == text + "\n"


def test_asking_twice_gives_the_same_answer_and_sampling_options_count(
    run, tuned, book, tmp_path
) -> None:
    out = tmp_path / "out"
    run("read", tuned, book, "--save-state", out, *FP32)
    words = ("ask", tuned, QUESTION, "--state", out, "--max-new-tokens", 20, *FP32)
    assert run(*words).out == run(*words).out
    hot = ("--temperature", 30, "--seed")
    first, second, again = (run(*words, *hot, seed).out for seed in (1, 2, 1))
    assert first == again != second


def test_questions_that_cannot_be_asked_are_refused(run, checkpoint, book, tmp_path) -> None:
    out = tmp_path / "out"
    run("read", checkpoint, book, "--save-state", out, *FP32)
    empty = run("ask", checkpoint, " ", "--state", out, *FP32)
    assert empty.code == 1 and "question is empty" in empty.err
    missing = run("ask", checkpoint, QUESTION, "--state", tmp_path / "none", *FP32)
    assert missing.code == 1 and "no state at" in missing.err
    assert run("ask", checkpoint, QUESTION).code == 2
    lm = griffin.load(checkpoint, device="cpu", dtype="float32")
    with pytest.raises(InputError, match="one row"):
        ask(lm, QUESTION, lm.model.empty_state(2))


def test_a_conversation_goes_on_from_the_kept_fork(tuned, book, tmp_path) -> None:
    lm = griffin.load(tuned, device="cpu", dtype="float32")
    read_text(lm, book, save=tmp_path / "out")
    stream = ask(lm, QUESTION, tmp_path / "out")
    stream.begin()
    stream.cancel()
    state, note = settled(lm, stream)
    state.save(tmp_path / "fork", note=note)
    end, user = (lm.tokenizer.special_id(name) for name in ("<end>", "<user>"))
    assert state.pending is not None and state.pending.tolist() == [end]
    again = ask(lm, "And the name?", tmp_path / "fork")
    again.begin()
    again.cancel()
    turn = lm.tokenizer.encode("And the name?", bos=False, continues=True)
    grown = int(again.output.state.tokens) - int(state.tokens)
    assert grown == len([user, *turn, lm.tokenizer.special_id("<model>")])


NOTE = "<note>The name is Emma, the place is Bath, the number is 47.</note>"


@pytest.fixture(scope="module")
def noted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled book's beginning, with a note near its head: over 4,000 tokens after it."""
    from griffin_lm.cli.demo import BUNDLE

    text = (BUNDLE / "book.txt").read_text(encoding="utf-8-sig")
    path = tmp_path_factory.mktemp("noted") / "book.txt"
    path.write_text(text[:120] + NOTE + text[120:14_500], encoding="utf-8")
    return path


@pytest.mark.parametrize("style", [(), ("--raw",)])
def test_fledgling_finds_a_note_over_four_thousand_tokens_back(run, noted, tmp_path, style) -> None:
    out = tmp_path / "fledgling.state"
    files = ("--save-state", out, "--json", tmp_path / "json")
    assert run("read", "fledgling", noted, "--markers", *style, *files, *FP32).code == 0
    assert json.loads((tmp_path / "json").read_text())["tokens"] > 4100
    for field, value in (("name", "Emma"), ("place", "Bath"), ("number", "47")):
        result = run("ask", "fledgling", f"What is the {field}?", "--state", out, *FP32)
        assert result.out.strip() == value
