"""Texts of the studies: cut without overlap, no author on both sides, losses by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import griffin_lm as griffin
from griffin_lm.errors import InputError
from griffin_lm.studies.texts import by_power, characters, crops, losses, novels, segments


@pytest.fixture(autouse=True)
def nothing_remembered() -> None:
    """Texts are kept from call to call; a test has its own."""
    characters.cache_clear()
    novels.cache_clear()


def test_characters_are_cut_80_10_10_in_their_order(tmp_path: Path) -> None:
    (tmp_path / "char").mkdir()
    (tmp_path / "char" / "warpeace.txt").write_bytes(bytes(range(10, 60)) * 20)
    corpus = characters(tmp_path)
    assert [len(corpus.train), len(corpus.valid[0]), len(corpus.test[0])] == [800, 100, 100]
    whole = np.concatenate([corpus.train, *corpus.valid, *corpus.test])
    assert whole.tolist() == list(range(50)) * 20
    assert corpus.source.startswith("War and Peace")


def test_without_data_it_is_the_bundled_book_and_that_is_said() -> None:
    assert characters(None).source == "the bundled book alone"
    assert "bundled book" in novels(None, 10**6, True).source


def test_no_author_is_on_both_sides(tmp_path: Path) -> None:
    rows = [
        {"id": str(n), "author": f"author {n % 20:02}", "text": chr(65 + n % 20) * 50}
        for n in range(40)
    ]
    path = tmp_path / "books.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    corpus = novels(tmp_path, 10**6, False)
    trained = set(corpus.train.tolist())
    held = {token for part in (*corpus.valid, *corpus.test) for token in part.tolist()}
    assert len(held) == 2 and not trained & held and len(trained) == 18
    assert len(corpus.valid) == len(corpus.test) == 2
    novels.cache_clear()
    assert len(novels(tmp_path, 120, False).train) == 120


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such folder"):
        characters(tmp_path / "nowhere")


def test_a_crop_is_a_run_of_the_text_and_its_targets_are_the_next_tokens() -> None:
    text = np.arange(1000)
    batch = crops(text, 5, 16)(np.random.default_rng(0), 0)
    assert batch.tokens.shape == (5, 16) and batch.targets.equal(batch.tokens + 1)
    assert (batch.tokens[:, 1:] - batch.tokens[:, :-1] == 1).all() and batch.weight.all()
    with pytest.raises(InputError, match="too short"):
        crops(text[:10], 5, 16)


def test_segments_share_no_target() -> None:
    found = segments([np.arange(100), np.arange(200, 230)], 10, 100)
    assert found.shape == (11, 11)
    targets = found[:, 1:].flatten().tolist()
    assert len(set(targets)) == len(targets)
    assert len(segments([np.arange(100)], 10, 3)) == 3
    with pytest.raises(InputError, match="no held-out document"):
        segments([np.arange(5)], 10, 3)


def test_losses_are_those_of_one_call(tiny_griffin: griffin.Griffin) -> None:
    rows = np.random.default_rng(0).integers(0, 96, (3, 21))
    found = losses(tiny_griffin, rows, torch.device("cpu"))
    logits, _ = tiny_griffin(torch.from_numpy(rows[:, :-1]))
    assert logits is not None
    wanted = -logits.log_softmax(-1).gather(2, torch.from_numpy(rows[:, 1:, None]))[..., 0]
    np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-4)


def test_means_by_position_begin_at_powers_of_two() -> None:
    each = np.arange(1, 8, dtype=float)[None]  # the loss of a token is its position
    assert by_power(each) == {"1": 1.0, "2": 2.5, "4": 5.5}
