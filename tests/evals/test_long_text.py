"""Loss on long texts: what one call gives, in constant memory; needles; what the command says."""

import io
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from griffin_lm.errors import DataError, InputError
from griffin_lm.evals import gaps, report
from griffin_lm.evals.likelihood import Asked, score_after_contexts
from griffin_lm.evals.long_text import documents_of, long_text_loss
from griffin_lm.evals.needle import NEEDLE, QUESTION, NeedleCell, measure_needle, needle_table
from griffin_lm.evals.perplexity import token_bytes
from griffin_lm.inference import LanguageModel
from griffin_lm.models import PRESETS, Griffin, build
from tests.inference.vocabulary import SENTENCES, vocabulary

TEXT = "\n".join(SENTENCES * 3) + "\nWhere’s the café? 漢字"


def model(dummy_prefix: bool = False) -> LanguageModel:
    tokenizer = vocabulary(dummy_prefix)
    config = replace(PRESETS["tiny-griffin"], vocab=tokenizer.vocab_size)
    return LanguageModel(build(config, seed=2, dtype=torch.float64), tokenizer)


@torch.no_grad()
def nats_of(lm: LanguageModel, text: str) -> np.ndarray:
    """The definition: each token's loss, in one call."""
    ids = torch.tensor([lm.encode(text)])
    logits, _ = lm.model(ids[:, :-1])
    assert logits is not None
    return -logits[0].log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0].numpy()


@pytest.mark.parametrize("dummy_prefix", [False, True])
def test_a_text_in_pieces_and_chunks_loses_what_it_loses_at_once(dummy_prefix: bool):
    lm = model(dummy_prefix)
    nats = nats_of(lm, TEXT)
    pieces = [TEXT[at : at + 37] for at in range(0, len(TEXT), 37)]
    for chunk in (16, 1024):
        loss, state = long_text_loss(lm, [pieces], chunk=chunk)
        assert loss.tokens == len(nats) and state.tokens.item() == len(nats)
        assert loss.nats == pytest.approx(nats.sum(), rel=1e-5)
        assert loss.bytes == len(TEXT.encode())
        for begin, mean in loss.by_position.items():
            assert mean == pytest.approx(nats[begin : 2 * begin].mean(), rel=1e-5)
    assert list(loss.by_position) == [
        2**k for k in range(len(nats).bit_length()) if 2**k < len(nats)
    ]


def test_documents_begin_anew_and_count_together():
    lm = model()
    one, two = nats_of(lm, SENTENCES[0]), nats_of(lm, TEXT)
    loss, _ = long_text_loss(lm, [[SENTENCES[0]], [TEXT], [""]], chunk=8)
    assert loss.nats == pytest.approx(one.sum() + two.sum(), rel=1e-5) and loss.documents == 3
    both = np.concatenate([one[4:8], two[4:8]])
    assert loss.by_position[4] == pytest.approx(both.mean(), rel=1e-5)
    with pytest.raises(DataError, match="empty"):
        long_text_loss(lm, [[""]])


def test_only_the_first_tokens_are_read_where_asked_and_the_rest_is_never_taken():
    lm, taken = model(), [0]
    nats = nats_of(lm, TEXT * 40)

    def endless() -> Iterator[str]:
        while True:
            taken[0] += 1
            yield TEXT

    for limit in (1, 16, 100):
        loss, _ = long_text_loss(lm, [endless()], limit=limit, chunk=16)
        assert loss.tokens == limit and loss.nats == pytest.approx(nats[:limit].sum(), rel=1e-5)
        ids = lm.encode(TEXT * 40)[1 : limit + 1]
        assert loss.bytes == token_bytes(lm.tokenizer)[ids].sum()
    assert taken[0] < 3 * (1 + 2**16 // len(TEXT) + 2)  # the encoder gathers 65,536 characters


def test_what_the_state_occupies_does_not_depend_on_the_length():
    sizes = {long_text_loss(model(), [[TEXT * n]], chunk=64)[1].nbytes for n in (1, 8)}
    assert len(sizes) == 1


def test_documents_come_from_a_file_from_books_and_from_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "a.txt").write_text(TEXT, encoding="utf-8")
    told: list[tuple[int, int]] = []

    def texts(path: Path, *ids: str) -> list[str]:
        return ["".join(d) for d in documents_of(path, ids, lambda *at: told.append(at))]

    size = len(TEXT.encode())
    assert texts(tmp_path / "a.txt") == [TEXT] and told == [(size, size)]
    rows = [{"id": "x", "text": "one"}, {"id": "y", "text": "two"}]
    (tmp_path / "b.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert texts(tmp_path / "b.jsonl") == ["one", "two"]
    assert texts(tmp_path / "b.jsonl", "y") == ["two"]
    with pytest.raises(DataError, match="no book 'z'"):
        texts(tmp_path / "b.jsonl", "y", "z")
    with pytest.raises(DataError, match="no such text"):
        texts(tmp_path / "missing.jsonl")
    with pytest.raises(InputError, match=r"missing\.txt"):
        texts(tmp_path / "missing.txt")
    (tmp_path / "c.txt").write_bytes(b"ab\xff")
    with pytest.raises(InputError, match=r"c\.txt is not UTF-8: byte 2"):
        texts(tmp_path / "c.txt")
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(TEXT.encode())))
    assert texts(Path("-")) == [TEXT]


def test_a_needle_is_scored_as_one_plain_reading_scores_it():
    lm = model()
    prose = np.array(lm.encode(TEXT * 3, bos=False))
    cells = measure_needle(lm.model, lm.tokenizer, [prose], [8, 40], rows=2)
    again = measure_needle(lm.model, lm.tokenizer, [prose], [40, 8], rows=2)
    assert cells == again and [cell.distance for cell in cells] == [8, 40]
    draw = np.random.default_rng(0)
    keys = [draw.choice(np.arange(10_000, 100_000), 10, replace=False) for _ in range(2)]
    nats: list[float] = []
    for row in keys:
        begin = int(draw.integers(len(prose) - 40 - 32))
        note = lm.tokenizer.encode(NEEDLE.format(key=row[0]), bos=False, continues=True)
        lead, gap = prose[begin : begin + 32].tolist(), prose[begin + 32 : begin + 40].tolist()
        question = lm.tokenizer.encode(QUESTION, bos=False, continues=True)
        whole = lm.tokenizer.encode(f"{QUESTION} {row[0]}", bos=False, continues=True)
        context = [lm.tokenizer.bos_id or 0, *lead, *note, *gap, *question]
        asked = Asked(tuple(context), tuple(whole[len(question) :]))
        nats.append(-score_after_contexts(lm.model, [asked])[0].logprob)
    assert cells[0].nats == pytest.approx(np.mean(nats), rel=1e-3)
    with pytest.raises(DataError, match="ask shorter distances"):
        measure_needle(lm.model, lm.tokenizer, [prose[:50]], [1024], rows=2)


def test_texts_that_are_too_short_follow_one_another():
    short = [np.arange(60), np.arange(100, 130)]
    [joined] = gaps.long_texts(short, 50)
    assert joined[:90].tolist() == [*range(60), *range(100, 130)]
    assert joined[90:].tolist() == joined[: len(joined) - 90].tolist()
    lead, gap = gaps.cut(joined, 50, np.random.default_rng(0))
    assert len(lead) == gaps.LEAD and len(gap) == 50
    assert [len(text) for text in gaps.long_texts([*short, np.arange(99)], 50)] == [99]
    with pytest.raises(DataError, match="113 tokens long together; ask shorter distances"):
        gaps.long_texts(short, 80)


def test_a_model_that_remembers_has_a_gain_and_is_right(monkeypatch: pytest.MonkeyPatch):
    """Every digit that was read is made likelier: the planted ones win."""
    lm = model()
    digits = {lm.tokenizer.encode(d, bos=False, continues=True)[0] for d in "0123456789"}
    plain, seen = Griffin.forward, dict[int, set[int]]()

    def remembers(self: Griffin, tokens: torch.Tensor, *rest: object, **options: object):
        logits, state = plain(self, tokens, *rest, **options)
        for row, ids in enumerate(tokens.tolist() if tokens.shape[0] == 2 else []):
            seen.setdefault(row, set()).update(digits.intersection(ids))
        if logits is not None:
            each = logits if logits.dim() == 3 else logits[:, None]
            for row in range(each.shape[0]):
                owner = row if each.shape[0] == 2 else row // (each.shape[0] // 2)
                each[row, :, list(seen[owner])] += 5.0
        return logits, state

    monkeypatch.setattr(Griffin, "forward", remembers)
    prose = np.array(lm.encode(TEXT * 3, bos=False))
    [cell] = measure_needle(lm.model, lm.tokenizer, [prose], [8], rows=2)
    assert cell.gain > 3 and cell.best == 2


def test_the_needle_table_has_a_row_per_distance():
    cell = NeedleCell(distance=16384, n=4, best=3, greedy=1, nats=2.0, others=9.5)
    assert needle_table([cell]).splitlines()[2] == (
        "| 16,384 | 4 | 0.75 | 0.25 | 2.00 | 9.50 | +7.50 |"
    )


def test_any_vocabulary_gets_a_needle_and_fledglings_gets_memos_too(tmp_path: Path):
    lm = model()
    (tmp_path / "a.txt").write_text(TEXT * 3, encoding="utf-8")
    figures = report.measure_recalls(lm, tmp_path / "a.txt", (), [8], 2)
    assert set(figures) == {"needle", "longest_text"} and len(report.recall_tables(figures)) == 1
