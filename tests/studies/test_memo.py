"""Memos of the study `recall`: rows in which answers and prose are weighed apart."""

import numpy as np
import pytest
import torch

from griffin_lm.evals.memo_text import FIELDS
from griffin_lm.evals.recall import measure_recall
from griffin_lm.inference import load
from griffin_lm.inference.resolution import BUNDLED
from griffin_lm.studies import memo, recall
from griffin_lm.text import load_tokenizer


def settings() -> memo.Memo:
    found = recall.SCALES["tiny"].memo
    assert found is not None
    return found


@pytest.fixture(scope="module")
def prose() -> np.ndarray:
    text = (BUNDLED["fledgling"] / "book.txt").read_text(encoding="utf-8")[:20_000]
    return np.array(load_tokenizer(BUNDLED["fledgling"]).encode(text, bos=False))


def test_gaps_double_in_the_first_half_and_stay() -> None:
    gaps = [memo.gap_at(step, 100, 128) for step in range(100)]
    assert gaps[0] == 8 and gaps == sorted(gaps) and set(gaps) == {8, 16, 32, 64, 128}
    assert gaps.index(128) <= 50 and gaps[-1] == 128
    assert memo.gap_at(0, 1, 8) == 8


def test_answers_weigh_as_much_as_said_and_no_target_is_of_another_document(
    prose: np.ndarray,
) -> None:
    batch = memo.rows_of(prose, settings())(np.random.default_rng(3), 2)
    heavy = batch.weight > 0.1
    assert batch.tokens.shape == (2, 64) and heavy.any()
    assert batch.weight[heavy].sum() == pytest.approx(1)
    assert batch.weight.sum() == pytest.approx(1 + memo.PROSE)
    begins = batch.starts[:, 1:]
    assert begins.any() and not batch.weight[:, :-1][begins].any()
    assert batch.starts[:, 0].all()
    assert torch.equal(batch.tokens[:, 1:], batch.targets[:, :-1])


def test_a_note_may_have_one_field(prose: np.ndarray) -> None:
    lm = load("fledgling", device="cpu", dtype="float32")
    cells = measure_recall(lm.model, lm.tokenizer, [prose], [64], rows=8, fields=FIELDS[:1])
    assert {cell.field for cell in cells} == {"name"} and len(cells) == 2
    assert sum(cell.right for cell in cells) >= 12  # fledgling answers at this distance
