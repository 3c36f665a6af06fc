"""The tasks of recall: what is asked is what the row says."""

import numpy as np
import pytest
import torch

from griffin_lm.studies.synthetic import ASK, FIRST, NOISE, SPECIAL, TASKS, Task
from griffin_lm.training.batch import Batch

COPYING, INDUCTION = Task("copying", 16, 40, 6), Task("induction", 16, 33)
MQAR = Task("mqar", 64, 48, 5)
EVERY = [COPYING, INDUCTION, MQAR]


def drawn(task: Task, seed: int = 0, rows: int = 64) -> Batch:
    """A batch of the task."""
    return TASKS[task.name](np.random.default_rng(seed), rows, task)


def test_the_data_are_copied_in_their_order() -> None:
    batch = drawn(COPYING)
    for tokens, targets, weight in zip(batch.tokens, batch.targets, batch.weight, strict=True):
        data = tokens[:34][tokens[:34] != NOISE]
        assert len(data) == 6 and (data >= FIRST).all()
        assert (tokens[34:] == ASK).all() and targets[34:].equal(data)
        assert weight.tolist() == [0] * 34 + [1] * 6


def test_what_followed_the_special_token_is_due_at_the_end() -> None:
    batch = drawn(INDUCTION)
    for tokens, targets, weight in zip(batch.tokens, batch.targets, batch.weight, strict=True):
        places = (tokens == SPECIAL).nonzero().flatten().tolist()
        assert len(places) == 2 and places[1] == 32 and places[0] <= 30
        assert targets[-1] == tokens[places[0] + 1] != SPECIAL
        assert weight.tolist() == [0] * 32 + [1]


def test_every_key_is_asked_for_once_and_has_its_value() -> None:
    batch = drawn(MQAR)
    for tokens, targets, weight in zip(batch.tokens, batch.targets, batch.weight, strict=True):
        pairs = dict(zip(tokens[0:10:2].tolist(), tokens[1:10:2].tolist(), strict=True))
        assert len(pairs) == 5 and all(0 < key < 32 <= value for key, value in pairs.items())
        asked = weight.nonzero().flatten()
        assert (asked >= 10).all() and sorted(tokens[asked].tolist()) == sorted(pairs)
        assert [pairs[key] for key in tokens[asked].tolist()] == targets[asked].tolist()
        blank = torch.ones(48, dtype=torch.bool)
        blank[:10], blank[asked] = False, False
        assert (tokens[blank] == 0).all()


def test_keys_come_again_sooner_rather_than_later() -> None:
    batch = drawn(Task("mqar", 64, 128, 4), rows=500)
    places = batch.weight.nonzero()[:, 1]
    assert (places < 8 + 30).float().mean() > 0.6  # by the power law; evenly it were a quarter


@pytest.mark.parametrize("task", EVERY, ids=lambda task: task.name)
def test_a_seed_gives_the_same_rows_and_another_others(task: Task) -> None:
    assert drawn(task, 3).tokens.equal(drawn(task, 3).tokens)
    assert not drawn(task, 3).tokens.equal(drawn(task, 4).tokens)


@pytest.mark.parametrize("task", EVERY, ids=lambda task: task.name)
def test_rows_begin_documents_and_stay_in_the_vocabulary(task: Task) -> None:
    batch = drawn(task)
    assert batch.starts[:, 0].all() and not batch.starts[:, 1:].any()
    assert batch.tokens.shape == (64, task.length) and batch.tokens.max() < task.vocab
