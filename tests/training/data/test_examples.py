"""Rows with answers: read by line, packed, and only answers have weight."""

import json
from pathlib import Path

import pytest

from griffin_lm.errors import DataError
from griffin_lm.text import Tokenizer
from griffin_lm.training.data.examples import Examples, read_examples
from griffin_lm.training.data.feeds import PackedFeed

ROWS = [{"prompt": f"{n} plus {n} is", "completion": f" {2 * n}."} for n in range(20)]


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_packed_rows_have_weight_at_their_answers_alone(
    tmp_path: Path, vocabulary: Tokenizer
) -> None:
    examples = read_examples(write(tmp_path / "a.jsonl", [*ROWS]), vocabulary)
    assert len(examples) == 20
    feed = PackedFeed(examples, 2, 64, seed=0)
    for _ in range(5):
        batch = feed.take(0.0)
        for tokens, weight in zip(batch.targets, batch.weight, strict=True):
            text = vocabulary.decode(tokens[weight > 0].tolist(), continues=True)
            assert text and set(text) <= set(" 0123456789.")
            assert (tokens[weight > 0] == vocabulary.eos_id).sum() == text.count(".")


def test_a_row_without_an_answer_is_named_and_counted(
    tmp_path: Path, vocabulary: Tokenizer
) -> None:
    path = write(tmp_path / "a.jsonl", [ROWS[0], {"prompt": "Why?", "completion": ""}])
    with pytest.raises(DataError, match=r"a\.jsonl, line 2: has an empty completion"):
        read_examples(path, vocabulary, max_bad=0)
    examples = read_examples(path, vocabulary)
    assert (len(examples), examples.malformed) == (1, 1)


def test_a_file_without_any_answer_is_refused(tmp_path: Path, vocabulary: Tokenizer) -> None:
    path = write(tmp_path / "a.jsonl", [{"prompt": "Why?", "completion": ""}])
    with pytest.raises(DataError, match=r"a\.jsonl: no row with an answer"):
        read_examples(path, vocabulary)


def test_rows_whose_answer_is_cut_off_are_told(tmp_path: Path, vocabulary: Tokenizer) -> None:
    rows = [ROWS[1], {"prompt": "a long way " * 30, "completion": " home"}]
    examples = read_examples(write(tmp_path / "a.jsonl", [*rows]), vocabulary)
    assert examples.unanswered(32) == [1] and examples.unanswered(1000) == []


def test_other_rows_are_other_data(tmp_path: Path, vocabulary: Tokenizer) -> None:
    one = read_examples(write(tmp_path / "a.jsonl", [*ROWS]), vocabulary)
    other = read_examples(write(tmp_path / "b.jsonl", [*ROWS[1:]]), vocabulary)
    assert one.identity != other.identity
    with pytest.raises(DataError, match="no rows"):
        Examples([])
