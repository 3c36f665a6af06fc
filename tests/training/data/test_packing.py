"""Packed rows and their feed: nothing lost, nothing twice, the same on any number of ranks."""

import io
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from griffin_lm.errors import ConfigError, DataError
from griffin_lm.text import Tokenizer
from griffin_lm.training.batch import Batch, Feed, Located, Reporting, World
from griffin_lm.training.config import TrainConfig
from griffin_lm.training.data.feeds import PackedFeed, PackedText
from griffin_lm.training.data.order import Order
from griffin_lm.training.data.packing import Packer
from griffin_lm.training.data.prepare import prepare


class Numbered:
    """Documents whose every token says which it is: document * 1000 + place."""

    def __init__(self, sizes: list[int], counted_from: int = 0) -> None:
        self.sizes, self.counted_from = sizes, counted_from
        self.identity = f"numbered {sizes}"

    def __len__(self) -> int:
        return len(self.sizes)

    def size(self, document: int) -> int:
        return self.sizes[document]

    def read(self, document: int, start: int, stop: int) -> np.ndarray[Any, Any]:
        return document * 1000 + np.arange(start, min(stop, self.sizes[document]))

    def counts(self, document: int, start: int, stop: int) -> np.ndarray[Any, Any] | None:
        return np.arange(start, stop) >= self.counted_from if self.counted_from else None


SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=30).filter(lambda sizes: max(sizes) > 1)
UNEVEN = [3, 17, 1, 8, 30, 2, 9, 9, 64, 5, 12, 7]


def rows_until(packer: Packer, position: int) -> list[list[tuple[int, int, int]]]:
    rows = []
    while packer.position < position:
        rows.append([tuple(piece) for piece in packer.next_row()])
    return rows


def taken(feed: PackedFeed, number: int) -> list[Batch]:
    return [feed.take(0.0) for _ in range(number)]


def same(one: list[Batch], other: list[Batch]) -> bool:
    pairs = zip(one, other, strict=True)
    return all(torch.equal(a, b) for x, y in pairs for a, b in zip(x[:5], y[:5], strict=True))


@settings(max_examples=80, deadline=None)
@given(sizes=SIZES, length=st.integers(1, 24), bins=st.integers(1, 8), seed=st.integers(0, 99))
def test_every_target_of_an_epoch_comes_once(
    sizes: list[int], length: int, bins: int, seed: int
) -> None:
    packer = Packer(Numbered(sizes), length, seed, bins=bins)
    rows = rows_until(packer, len(sizes))
    saved = packer.to_dict()
    spans = [piece for row in [*rows, *(e["pieces"] for e in saved["open"])] for piece in row]
    inputs = Counter((doc, at) for doc, start, n in spans for at in range(start, start + n))
    order = Order(len(sizes), seed)
    expected = Counter(
        (order[place], at)
        for place in range(saved["position"])
        for at in range(sizes[order[place]] - 1)
    )
    expected.update((order[saved["position"]], at) for at in range(saved["start"]))
    assert inputs == expected and saved["position"] >= len(sizes)
    assert all(sum(n for *_, n in row) <= length for row in rows)


@settings(max_examples=50, deadline=None)
@given(sizes=SIZES, length=st.integers(2, 24), steps=st.integers(0, 12), seed=st.integers(0, 99))
def test_after_any_step_a_restored_feed_gives_the_same_batches(
    sizes: list[int], length: int, steps: int, seed: int
) -> None:
    documents = Numbered(sizes)
    feed = PackedFeed(documents, 2, length, seed, bins=4)
    taken(feed, steps)
    buffer = io.BytesIO()
    torch.save(feed.to_dict(), buffer)
    buffer.seek(0)
    again = PackedFeed(documents, 2, length, seed, bins=4)
    again.restore(torch.load(buffer, weights_only=True))
    assert again.figures() == feed.figures()
    assert same(taken(feed, 6), taken(again, 6))
    assert again.to_dict() == feed.to_dict()


@pytest.mark.parametrize("ranks", [2, 3])
def test_the_ranks_together_take_what_one_alone_takes(ranks: int) -> None:
    documents = Numbered(UNEVEN)
    alone = PackedFeed(documents, 2 * ranks, 16, seed=3)
    feeds = [PackedFeed(documents, 2, 16, 3, World(rank, ranks)) for rank in range(ranks)]
    for _ in range(8):
        whole, parts = alone.take(0.0), [feed.take(0.0) for feed in feeds]
        for rank, part in enumerate(parts):
            for name in ("tokens", "starts", "valid", "targets", "weight"):
                assert torch.equal(getattr(part, name), getattr(whole, name)[rank::ranks])
        assert all(feed.to_dict() == alone.to_dict() for feed in feeds)


def test_a_run_goes_on_with_another_number_of_ranks() -> None:
    documents = Numbered(UNEVEN)
    before = PackedFeed(documents, 4, 16, seed=3)
    taken(before, 5)
    after = PackedFeed(documents, 2, 16, 3, World(1, 2))
    after.restore(before.to_dict())
    assert torch.equal(after.take(0.0).tokens, before.take(0.0).tokens[1::2])


def test_targets_are_the_next_tokens_of_the_same_document() -> None:
    for batch in taken(PackedFeed(Numbered(UNEVEN), 4, 16, seed=1, bins=2), 10):
        assert torch.equal(batch.targets[batch.valid], batch.tokens[batch.valid] + 1)
        assert torch.equal(batch.weight, batch.valid.float())
        assert not batch.starts[~batch.valid].any()
        inside = batch.valid & ~batch.starts
        assert not inside[:, 0].any()  # every row begins with a start
        follows = batch.tokens[:, 1:] == batch.tokens[:, :-1] + 1
        assert torch.equal(inside[:, 1:], follows & inside[:, 1:])
        assert bool((batch.valid[:, :-1] | ~batch.valid[:, 1:]).all())  # padding at the right


def test_only_what_counts_has_weight() -> None:
    for batch in taken(PackedFeed(Numbered([9, 12, 5], counted_from=4), 2, 16, seed=1), 3):
        counts = batch.valid & (batch.targets % 1000 >= 4)
        assert torch.equal(batch.weight, counts.float())


def test_cut_takes_only_the_first_row_of_a_long_document() -> None:
    rows = rows_until(Packer(Numbered([100, 8]), 16, seed=0, split="cut"), 40)
    assert {start for row in rows for _, start, _ in row} == {0}


def test_best_fit_wastes_little() -> None:
    sizes = np.random.default_rng(0).integers(2, 400, size=3000).tolist()
    feed = PackedFeed(Numbered(sizes), 8, 512, seed=0)
    taken(feed, 60)
    assert feed.figures()["filled"] > 0.98


def test_a_cursor_of_other_data_or_settings_is_refused() -> None:
    saved = PackedFeed(Numbered(UNEVEN), 2, 16, seed=0).to_dict()
    for other, name in [
        (PackedFeed(Numbered([5, 6]), 2, 16, seed=0), "documents"),
        (PackedFeed(Numbered(UNEVEN), 2, 32, seed=0), "length"),
        (PackedFeed(Numbered(UNEVEN), 2, 16, seed=1), "seed"),
    ]:
        with pytest.raises(DataError, match=f"with {name}"):
            other.restore(saved)


def test_settings_and_documents_that_cannot_be_packed_are_refused() -> None:
    with pytest.raises(DataError, match="nothing to predict"):
        Packer(Numbered([1, 1]), 16, seed=0)
    with pytest.raises(ConfigError, match="split or cut"):
        Packer(Numbered([5]), 16, seed=0, split="drop")


def test_the_feed_says_where_it_is() -> None:
    feed = PackedFeed(Numbered(UNEVEN), 2, 16, seed=0)
    taken(feed, 1)
    assert isinstance(feed, Feed) and isinstance(feed, Located) and isinstance(feed, Reporting)
    assert feed.where().startswith("epoch 1, documents ")


def test_a_recipe_opens_prepared_text(tmp_path: Path, vocabulary: Tokenizer) -> None:
    (tmp_path / "a.txt").write_text("Once upon a time there was a fox. " * 20)
    prepare(tmp_path / "a.txt", vocabulary, tmp_path / "data")
    config = TrainConfig(model="fledgling", feed=PackedText(), rows=2, length=32)
    out = tmp_path / "out"
    feed = PackedText().open(config, tmp_path / "data", out, World())
    batch = feed.take(0.0)
    ids = vocabulary.encode("Once upon a time there was a fox. " * 20)
    assert batch.tokens[0].tolist() == ids[:32] and batch.targets[1].tolist() == ids[33:65]
    assert (out / "tokenizer.model").exists()


def test_ids_that_the_model_lacks_are_refused(tmp_path: Path, vocabulary: Tokenizer) -> None:
    (tmp_path / "a.txt").write_text("Once upon a time there was a fox.")
    prepare(tmp_path / "a.txt", vocabulary, tmp_path / "data")
    config = TrainConfig(model="fledgling", rows=1, length=8)
    small = TrainConfig(
        model=type(config.model_config()).from_dict({**config.model_config().to_dict(), "vocab": 8})
    )
    with pytest.raises(DataError, match="the model has 8 rows"):
        PackedText().open(small, tmp_path / "data", tmp_path / "out", World())
