"""A longer recall in two steps: gates that are shut in prose, and questions from far states."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import griffin_lm as griffin
from griffin_lm.errors import ConfigError, DataError
from griffin_lm.evals.books import read_books
from griffin_lm.inference.loading import BUNDLED
from griffin_lm.models import Griffin
from griffin_lm.training.memo import far, retention
from tests.training.memo.conftest import cell_of, rows


def random_books(count: int = 3, length: int = 900) -> list[np.ndarray]:
    return [rows(1, length, seed)[0].numpy() for seed in range(count)]


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> far.Texts:
    monkeypatch.setattr(far, "_LENGTH", 64)
    monkeypatch.setattr(far, "_CHUNK", 48)
    return far.Texts(random_books(), griffin.load("fledgling").tokenizer)


def test_slow_channels_forget_less_in_prose_and_write_the_same_at_notes(model: Griffin):
    with torch.no_grad():
        cell_of(model).Lambda[8:] = 0.0  # eight channels of the first head are slow
    noted = rows(6, 20, 1)
    asked = torch.zeros(6, 20, dtype=torch.bool)
    asked[:, 3] = True
    before = [part.detach().clone() for part in cell_of(model).a_gate.parameters()]
    fits = retention.shut_gates(model, 0, rows(8, 64, 0), noted, asked, steps=120)
    assert {fit.channel for fit in fits} == set(range(8))
    longer = [fit.half_life[1] / fit.half_life[0] for fit in fits]
    assert min(longer) > 0.5 and np.median(longer) > 3
    assert max(fit.faith for fit in fits) < 0.2
    for was, now in zip(before, cell_of(model).a_gate.parameters(), strict=True):
        assert torch.equal(was[1:], now[1:]) and torch.equal(was[0, ..., 8:], now[0, ..., 8:])
        assert not torch.equal(was[0, ..., :8], now[0, ..., :8])


def test_its_figures_are_those_of_the_model_that_it_leaves(model: Griffin):
    prose, noted = rows(4, 64, 0), rows(2, 20, 1)
    asked = torch.ones(2, 20, dtype=torch.bool)
    [fit, *_] = retention.shut_gates(model, 0, prose, noted, asked, steps=10)
    again = retention.shut_gates(model, 0, prose, noted, asked, steps=0)
    assert again[0].half_life[0] == pytest.approx(fit.half_life[1], rel=1e-3)
    assert again[0].drift[0] == pytest.approx(fit.drift[1], rel=1e-3)


def test_a_layer_without_a_recurrence_is_refused(model: Griffin):
    with pytest.raises(ConfigError, match="layer 2"):
        retention.shut_gates(model, 2, rows(1, 8, 0), rows(1, 8, 1), torch.ones(1, 8).bool(), 1)


def test_rows_with_notes_say_which_tokens_are_theirs(texts: far.Texts):
    tokens, asked = texts.noted(3)
    for row, marked in zip(tokens, asked, strict=True):
        said = texts.tokenizer.decode(row[marked].tolist())
        assert "The name is" in said and "What is the" in said
        assert not marked[:40].any() and marked[40]


def test_passages_end_with_a_question_and_know_its_answer(texts: far.Texts):
    tokens, answers = texts.near(12)
    assert tokens.shape == (12, 200)
    for row, answer in zip(tokens.tolist(), answers.tolist(), strict=True):
        said = texts.tokenizer.decode(row)
        asked = next(name for name in far.FIELDS if said.endswith(f"What is the {name}?"))
        if "The name is" in said:
            assert f"the {asked} is{texts.tokenizer.decode([answer])}" in said.replace("The", "the")
        else:
            assert answer == texts.refusal


def test_far_states_are_those_of_reading_from_the_beginning(texts: far.Texts):
    model = griffin.load("fledgling", dtype="float32").model
    states = far.FarStates(model, texts, (50, 130), lambda _: None, rows=(3, 2))
    state, tokens, answers = states.batch(2, 1)
    assert len(state) == len(tokens) == len(answers) == 3
    assert int(answers[2]) == texts.refusal
    with torch.no_grad():
        at_once = model(states.gaps[:, 50:130], state=states.states[0], logits="last")[1]
    for one, other in zip(at_once.layers, states.states[1].layers, strict=True):
        for a, b in zip(one, other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_training_from_far_states_moves_all_but_the_embedding(texts: far.Texts):
    model, before = (griffin.load("fledgling", dtype="float32").model for _ in range(2))
    states = far.FarStates(model, texts, (50,), lambda _: None, rows=(12, 6))
    means = far.train_readers(model, before, states, lambda _: None, steps=2)
    assert 0 <= means["far_right"] <= 1 and means["moved"] >= 0
    pairs = zip(model.named_parameters(), before.parameters(), strict=True)
    same = {name for (name, now), was in pairs if torch.equal(now, was)}
    assert same == {"embed.weight"}
    assert all(weight.requires_grad for weight in model.parameters())


def test_books_that_are_too_short_are_refused():
    with pytest.raises(DataError, match="2048"):
        far.Texts(random_books(), griffin.load("fledgling").tokenizer)


def copy_of_fledgling(folder: Path, **facts: object) -> Path:
    given = folder / "given"
    shutil.copytree(BUNDLED["fledgling"], given)
    known = json.loads((given / "training.json").read_text())
    (given / "training.json").write_text(json.dumps(known | {"held_out": {"kept": 1}} | facts))
    return given


def test_other_books_than_it_learned_from_are_refused(books: Path, tmp_path: Path):
    given = copy_of_fledgling(tmp_path, train_books=84)
    with pytest.raises(DataError, match="learned from 84"):
        far.recall_farther(given, books, tmp_path / "made", lambda _: None)


def test_a_checkpoint_is_made_from_a_checkpoint(
    books: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    given = copy_of_fledgling(tmp_path, train_books=len(list(read_books(books))) - 1)
    small = {"_LENGTH": 64, "_CHUNK": 16, "_ROWS": 4, "_NOTES": 6, "NOTED": 12, "PLAIN": 6}
    for name, value in (small | {"DISTANCES": (32,), "STEPS": 1}).items():
        monkeypatch.setattr(far, name, value)
    monkeypatch.setattr(retention, "STEPS", 2)
    made = far.recall_farther(given, books, tmp_path / "made", lambda _: None)
    lm = griffin.load(tmp_path / "made", dtype="float32")
    assert json.loads((tmp_path / "made" / "training.json").read_text()) == made
    assert made["gates_shut_in_prose"]["channels"]["0"] > 0
    assert lm.config == griffin.load(given).config
