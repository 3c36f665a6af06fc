"""Data: the split by book, memo documents, streams, the curriculum, the vocabulary."""

import math
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import torch

from griffin_lm.errors import ConfigError, DataError
from griffin_lm.evals.memo_text import FIELDS, VALUES, single_pieces
from griffin_lm.inference.loading import BUNDLED
from griffin_lm.training.config import TrainConfig, with_settings
from griffin_lm.training.memo import MemoFeed
from griffin_lm.training.memo.corpus import split, token_cache
from griffin_lm.training.memo.curriculum import Curriculum
from griffin_lm.training.memo.documents import NO_ANSWER, NOTHING, VALUE, MemoTokens, memo_document
from griffin_lm.training.memo.streams import Streams
from griffin_lm.training.memo.vocabulary import train_vocabulary
from griffin_lm.training.pretraining import open_run
from griffin_lm.training.trainer import Trainer


@pytest.fixture(scope="module")
def pieces() -> sentencepiece.SentencePieceProcessor:
    path = BUNDLED["fledgling"] / "tokenizer.model"
    return sentencepiece.SentencePieceProcessor(model_file=str(path))


@pytest.fixture(scope="module")
def memo(pieces: sentencepiece.SentencePieceProcessor) -> MemoTokens:
    return MemoTokens(pieces, single_pieces(pieces.encode))


def course_of(run: Trainer) -> MemoFeed:
    assert isinstance(run.feed, MemoFeed)
    return run.feed


def course_at(longest: int, fields: int = 3) -> Curriculum:
    course = Curriculum()
    course.longest, course.fields = longest, fields
    return course


def test_a_held_out_book_is_in_no_training_token(
    books: Path, tmp_path: Path, pieces: sentencepiece.SentencePieceProcessor
):
    corpus = token_cache(books, tmp_path / "tokens", ("kept",), pieces)
    zebra = pieces.encode(" zebra" * 3)
    kept = corpus.held_out["kept"].tolist()
    assert kept[20 : 20 + len(zebra)] and pieces.decode(kept[:-1]).startswith("zebra zebra")
    assert "zebra" not in pieces.decode(corpus.train.tolist())
    assert corpus.train.dtype == np.uint16


def test_a_book_to_hold_out_that_is_not_there_is_named(books: Path):
    with pytest.raises(DataError, match="missing"):
        split(books, ("missing",))


def test_a_cache_of_another_split_is_refused(
    books: Path, tmp_path: Path, pieces: sentencepiece.SentencePieceProcessor
):
    token_cache(books, tmp_path / "tokens", ("kept",), pieces)
    with pytest.raises(DataError, match="other held-out books"):
        token_cache(books, tmp_path / "tokens", ("book1",), pieces)


def test_labels_point_at_the_first_token_of_each_answer(
    memo: MemoTokens, pieces: sentencepiece.SentencePieceProcessor
):
    prose = np.full(5000, pieces.encode(" the")[0], dtype=np.uint16)
    random = np.random.default_rng(0)
    kinds: set[int] = set()
    for _ in range(40):
        document = memo_document(prose, memo, course_at(256), random)
        tokens = document.tokens.tolist()
        assert tokens[0] == pieces.bos_id()
        note_at = tokens.index(pieces.piece_to_id("</note>"))
        note = pieces.decode(tokens[:note_at])
        for place in np.flatnonzero(document.kind != NO_ANSWER):
            field = FIELDS[document.field[place]]
            question = memo.questions[field]
            assert tokens[place - len(question) : place] == question
            word = pieces.decode([tokens[place]]).strip()
            kinds.add(int(document.kind[place]))
            if document.kind[place] == VALUE:
                assert f"the {field} is {word}".lower() in note.lower()
                assert document.gap[place] == place - len(question) - note_at - 1
            else:
                assert document.kind[place] == NOTHING and place < note_at and word == "There"
    assert kinds == {VALUE, NOTHING}


def test_gaps_stay_within_the_curriculum(
    memo: MemoTokens, pieces: sentencepiece.SentencePieceProcessor
):
    prose = np.full(50_000, pieces.encode(" the")[0], dtype=np.uint16)
    random = np.random.default_rng(0)
    first_gaps: list[int] = []
    for _ in range(200):
        document = memo_document(prose, memo, course_at(2048, 1), random)
        first_gaps += document.gap[document.kind == VALUE].tolist()
    assert min(first_gaps) < 12 and 1500 < max(first_gaps) <= 2048
    assert 60 < np.median(first_gaps) < 130  # log-uniform from 4 to 2048: about 90


def test_streams_follow_one_another_without_a_gap(
    memo: MemoTokens, pieces: sentencepiece.SentencePieceProcessor
):
    prose = np.arange(4000, dtype=np.uint16) % 1000 + 600

    def taken(length: int, times: int) -> np.ndarray:
        streams = Streams(1, prose, memo, course_at(64), 7)
        return np.concatenate([streams.take(length).inputs[0].numpy() for _ in range(times)])

    assert np.array_equal(taken(16, 12), taken(64, 3))
    streams = Streams(2, prose, memo, course_at(64), 7)
    first, second = streams.take(32), streams.take(32)
    assert (first.inputs[:, 1:] == first.targets[:, :-1]).all()
    assert (first.targets[:, -1] == second.inputs[:, 0]).all()
    assert (first.inputs[first.starts] == pieces.bos_id()).all() and first.starts[:, 0].all()


def test_the_curriculum_takes_fields_one_by_one_and_then_distance():
    course = Curriculum(fields=2, first_gap=16, last_gap=64)
    changes: list[str] = []
    for _ in range(400):
        for field in range(course.fields):
            course.record(VALUE, field, max(1, course.longest * 3 // 4), True)
        changes += filter(None, [course.advance()])
    assert changes == ["longest gap 16", "2 fields", "longest gap 32", "longest gap 64"]


def test_the_curriculum_waits_for_the_weakest_field():
    course = course_at(128)
    for _ in range(100):
        course.record(VALUE, 0, 100, True)
        course.record(VALUE, 1, 100, False)
        course.record(VALUE, 2, 100, True)
    assert course.advance() == "" and course.weakest() == 1


def test_a_restored_curriculum_is_the_same(run: Trainer):
    for _ in range(4):
        run.step()
    saved = course_of(run).course.to_dict()
    other = Curriculum()
    other.restore(saved)
    assert other.to_dict() == saved
    assert other.table(NOTHING) == course_of(run).course.table(NOTHING)


def test_short_windows_are_as_frequent_as_asked(run: Trainer):
    windows = torch.cat([course_of(run).windows(0.0) for _ in range(500)])
    short = windows < 24
    assert short.float().mean() == pytest.approx(0.6, abs=0.06)
    assert windows[short].min() == 4 and windows[short].max() == 16


def test_answers_count_apart_from_prose(run: Trainer):
    """Prose counts its weight together; an answer at most 1 / answer_floor; none counts 0."""
    for _ in range(20):
        batch = course_of(run).take(0.0)
        asked = batch.labels.kind != NO_ANSWER
        assert batch.weight[~asked].sum() == pytest.approx(0.6)
        assert batch.weight[asked].sum() == pytest.approx(min(1, int(asked.sum()) / 8))
    assert all(math.isfinite(run.step().loss) for _ in range(8))


def test_the_course_tells_prose_from_answers_in_its_figures(run: Trainer):
    for _ in range(4):
        run.step()
    figures = course_of(run).figures()
    assert figures["prose"] == pytest.approx(7.6, abs=0.8)  # ln 2048
    assert (figures["fields"], figures["longest_gap"]) == (1, 8)
    assert course_of(run).figures()["prose"] == 0


def test_the_course_wants_its_own_weights(config: TrainConfig, books: Path, out: Path):
    with pytest.raises(ConfigError, match='loss_over="batches"'):
        open_run(with_settings(config, ["loss_over=weights"]), books, out, "cpu")


def test_every_value_is_one_token_of_the_bundled_vocabulary(
    pieces: sentencepiece.SentencePieceProcessor,
):
    found = single_pieces(pieces.encode)
    assert {field: list(values) for field, values in found.items()} == VALUES
    ids = [token for values in found.values() for token in values.values()]
    assert len(ids) == len(set(ids)) == 314


def test_a_trained_vocabulary_keeps_text_and_has_the_values(books: Path, tmp_path: Path):
    texts = [(books / "books.jsonl").read_text()]
    train_vocabulary(texts, tmp_path / "tokenizer.model", 1100, 20_000)
    trained = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    assert [trained.pad_id(), trained.eos_id(), trained.bos_id(), trained.unk_id()] == [0, 1, 2, 3]
    text = "  Two  spaces,\n\na break, ünïcode 漢 and no prefix\n"
    assert trained.decode(trained.encode(text)) == text
    found = single_pieces(trained.encode)
    assert all(len(found[field]) > 0.9 * len(VALUES[field]) for field in FIELDS)


def test_a_vocabulary_without_the_values_is_refused():
    with pytest.raises(DataError, match="no single tokens"):
        single_pieces(lambda text: list(text.encode()))
