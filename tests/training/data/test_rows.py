"""Rows to ids and answers: what is learned is what the model has to say, no more."""

import pytest

from griffin_lm.errors import DataError
from griffin_lm.text import Tokenizer, Turn, encode_turns
from griffin_lm.text.chat import PLAIN
from griffin_lm.training.data.rows import encode_row, parse_row, require_answer

CHAT = {
    "messages": [
        {"role": "user", "content": "Who goes there?"},
        {"role": "assistant", "content": "A fox."},
        {"role": "user", "content": "Where to?"},
        {"role": "assistant", "content": "Home."},
    ]
}


def answers(vocabulary: Tokenizer, value: object, **options: object) -> list[list[int]]:
    """The stretches of ids that count, in order."""
    ids, mask = encode_row(parse_row(value), vocabulary, **options)  # type: ignore[arg-type]  (tests give plain values)
    found: list[list[int]] = []
    for place, (token, counts) in enumerate(zip(ids, mask, strict=True)):
        if counts and not (place and mask[place - 1]):
            found.append([])
        if counts:
            found[-1].append(token)
    return found


def test_the_models_turns_count_with_the_marker_that_ends_them(vocabulary: Tokenizer) -> None:
    end = vocabulary.special_id("<end>")
    assert answers(vocabulary, CHAT) == [
        [*vocabulary.encode("A fox.", bos=False, continues=True), end],
        [*vocabulary.encode("Home.", bos=False, continues=True), end],
    ]


def test_a_conversation_has_the_ids_with_which_the_model_is_asked(vocabulary: Tokenizer) -> None:
    ids, mask = encode_row(parse_row(CHAT), vocabulary)
    turns = [Turn(role="user", text="Who goes there?")]
    assert vocabulary.turn is not None
    asked = encode_turns(vocabulary, vocabulary.turn, turns)
    assert ids[: len(asked)] == asked and mask.index(True) == len(asked)


def test_without_markers_the_blank_line_that_ends_an_answer_counts(vocabulary: Tokenizer) -> None:
    found = answers(vocabulary, CHAT, template=PLAIN)
    assert [vocabulary.decode(ids, continues=True) for ids in found] == ["A fox.\n\n", "Home.\n\n"]


def test_a_completion_counts_with_eos_and_its_prompt_does_not(vocabulary: Tokenizer) -> None:
    found = answers(vocabulary, {"prompt": "2 + 2 =", "completion": " 4"})
    assert found == [
        [*vocabulary.encode(" 4", bos=False, continues=True), vocabulary.eos_id],
    ]


def test_of_plain_text_everything_counts_but_bos(vocabulary: Tokenizer) -> None:
    assert answers(vocabulary, {"text": "Once."}) == [vocabulary.encode("Once.", bos=False)]


def test_markers_typed_in_a_text_open_no_turn(vocabulary: Tokenizer) -> None:
    row = {"turns": [{"role": "user", "text": "<end><model>"}, {"role": "model", "text": "No."}]}
    ids, _ = encode_row(parse_row(row), vocabulary)
    assert ids.count(vocabulary.special_id("<model>") or -1) == 1


def test_a_system_text_stands_at_the_head_of_the_first_user_turn() -> None:
    row = {"messages": [{"role": "system", "content": "Be short."}, *CHAT["messages"]]}
    assert parse_row(row).turns[0] == Turn(role="user", text="Be short.\n\nWho goes there?")


@pytest.mark.parametrize(
    "value",
    [
        {"messages": CHAT["messages"][:1]},
        {"turns": [{"role": "user", "text": "Hm?"}, {"role": "model", "text": " "}]},
        {"prompt": "2 + 2 =", "completion": ""},
    ],
)
def test_a_row_without_an_answer_is_refused_where_one_is_needed(value: object) -> None:
    with pytest.raises(DataError, match="no answer to learn"):
        require_answer(parse_row(value))


def test_a_row_with_an_answer_passes() -> None:
    assert require_answer(parse_row(CHAT)) is None
