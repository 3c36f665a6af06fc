"""Measurements: losses that are known beforehand, recall that the bundled model has."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from griffin_lm.errors import DataError
from griffin_lm.evals import report
from griffin_lm.evals.card import card
from griffin_lm.evals.perplexity import cut_segments, text_loss, token_bytes, zero_recurrent
from griffin_lm.evals.recall import Cell, measure_recall, recall_table
from griffin_lm.inference import LanguageModel, load
from griffin_lm.inference.loading import BUNDLED


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return load("fledgling", device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def book(lm: LanguageModel) -> np.ndarray:
    text = (BUNDLED["fledgling"] / "book.txt").read_text(encoding="utf-8")[:60_000]
    return report.encode_texts(lm, {"book": text})[0]


@pytest.fixture
def segments() -> np.ndarray:
    return np.random.default_rng(0).integers(300, 2048, (3, 100))


def test_a_model_that_knows_nothing_loses_ln_v_per_token(lm: LanguageModel, segments: np.ndarray):
    model = load("fledgling", device="cpu", dtype="float32").model
    with torch.no_grad():
        model.embed.weight.zero_()
    loss = text_loss(model, lm.tokenizer, segments)
    assert loss.nats_per_token == pytest.approx(math.log(2048), rel=1e-5)
    assert loss.tokens == 300
    assert loss.by_position[64] == pytest.approx(math.log(2048), rel=1e-5)


def test_bytes_of_tokens_add_up_to_the_text(lm: LanguageModel):
    text = "Where’s the café? 漢字 \n\nNo. 47, Bath,  two spaces"
    tokens = lm.encode(text, bos=False)
    assert token_bytes(lm.tokenizer)[tokens].sum() == len(text.encode())


def test_the_loss_is_that_of_one_call(lm: LanguageModel, segments: np.ndarray):
    tokens = torch.from_numpy(segments)
    bos = torch.full((3, 1), lm.tokenizer.bos_id or 0)
    logits, _ = lm.model(torch.cat([bos, tokens[:, :-1]], 1))
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens.flatten())
    found = text_loss(lm.model, lm.tokenizer, segments).nats_per_token
    assert found == pytest.approx(expected.item(), rel=1e-4)


def test_forgetting_zeroes_h_and_nothing_else(lm: LanguageModel, segments: np.ndarray):
    _, state = lm.model(torch.from_numpy(segments), logits=None)
    for before, after in zip(state.layers, zero_recurrent(state).layers, strict=True):
        for name in before._fields:
            value = getattr(after, name)
            same = torch.equal(getattr(before, name), value)
            assert same if name != "h" else not value.any()


def test_the_bundled_model_reads_better_with_its_recurrent_state(
    lm: LanguageModel, book: np.ndarray
):
    cut = cut_segments([book], 64, 24)
    carried = text_loss(lm.model, lm.tokenizer, cut)
    without = text_loss(lm.model, lm.tokenizer, cut, "token")
    assert carried.bits_per_byte < 2.3
    assert without.bits_per_byte > carried.bits_per_byte + 0.05


def test_the_bundled_model_recalls_beyond_its_window(lm: LanguageModel, book: np.ndarray):
    cells = measure_recall(lm.model, lm.tokenizer, [book], [64, 1024], rows=12)
    assert len(cells) == 2 * 3 * 2
    far = [cell for cell in cells if cell.distance == 1024]
    assert sum(cell.right for cell in far if cell.noted) >= 0.5 * 36
    assert sum(cell.right for cell in far if not cell.noted) >= 0.85 * 36


def test_a_random_model_recalls_nothing(lm: LanguageModel, book: np.ndarray):
    model = load("fledgling", device="cpu", dtype="float32").model.initialise(3)
    cells = measure_recall(model, lm.tokenizer, [book], [64], rows=8)
    assert sum(cell.right for cell in cells if cell.noted) <= 2


def test_texts_too_short_are_refused(lm: LanguageModel):
    short = np.arange(300, 400)
    with pytest.raises(DataError, match="long"):
        measure_recall(lm.model, lm.tokenizer, [short], [1024], rows=2)
    with pytest.raises(DataError, match="100 tokens"):
        cut_segments([short], 200, 4)


def test_texts_are_read_from_files_and_from_books(tmp_path: Path):
    (tmp_path / "a.txt").write_text("plain", encoding="utf-8")
    rows = [{"id": "x", "text": "one"}, {"id": "y", "text": "two"}]
    lines = "\n".join(json.dumps(row) for row in rows)
    (tmp_path / "b.jsonl").write_text(lines, encoding="utf-8")
    assert report.read_texts(tmp_path / "a.txt") == {"a.txt": "plain"}
    assert report.read_texts(tmp_path / "b.jsonl", ("y",)) == {"y": "two"}
    with pytest.raises(DataError, match="no book 'z'"):
        report.read_texts(tmp_path / "b.jsonl", ("z",))
    (tmp_path / "c.jsonl").write_text('{"id": 3}\n', encoding="utf-8")
    with pytest.raises(DataError, match="line 1"):
        report.read_texts(tmp_path / "c.jsonl")


def test_the_table_has_a_row_per_distance():
    cells = [
        Cell(distance=at, field=field, noted=noted, n=4, right=3)
        for at in (64, 16384)
        for field in ("name", "place", "number")
        for noted in (True, False)
    ]
    lines = recall_table(cells).splitlines()
    assert lines[2:] == [f"| {at} | 4 |" + " 0.75 |" * 6 for at in ("64", "16,384")]


def test_the_card_is_what_the_files_say():
    folder = BUNDLED["fledgling"]
    read = {
        name: json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("training", "recall")
    }
    farther = sorted(folder.glob("recall_*.json"))
    far = [json.loads(path.read_text(encoding="utf-8")) for path in farther]
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert card(read["training"], read["recall"], *far) == text
    assert f"{read['training']['tokens']:,} tokens" in text
