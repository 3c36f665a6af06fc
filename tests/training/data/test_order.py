"""The order of examples: each once an epoch, by seed, epoch and position alone."""

import itertools
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from griffin_lm.errors import InputError
from griffin_lm.training.data.order import Order, Permutation

SEEDS = st.integers(0, 2**63)


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 700), seed=SEEDS, epoch=st.integers(0, 1000))
def test_every_example_comes_once(n: int, seed: int, epoch: int) -> None:
    assert sorted(Permutation(n, seed, epoch)) == list(range(n))


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 50), seed=SEEDS, ranks=st.integers(1, 7))
def test_ranks_share_one_order(n: int, seed: int, ranks: int) -> None:
    alone = [Order(n, seed)[position] for position in range(3 * n)]
    shared = [0] * (3 * n)
    for rank in range(ranks):
        order = Order(n, seed)
        for position in range(rank, 3 * n, ranks):
            shared[position] = order[position]
    assert shared == alone


def test_orders_differ_by_seed_and_by_epoch() -> None:
    orders = [list(Permutation(1000, seed, epoch)) for seed in range(4) for epoch in range(4)]
    for place, one in enumerate(orders):
        for other in orders[:place]:
            same = sum(a == b for a, b in zip(one, other, strict=True))
            assert same < 15  # two random orders agree at 1 place on average


def test_an_order_looks_random() -> None:
    n = 4096
    order = list(Permutation(n, seed=5, epoch=0))
    rising = sum(b > a for a, b in itertools.pairwise(order))
    assert abs(rising - n / 2) < 4 * (n / 12) ** 0.5  # standard deviation of the ascents
    first = sum(order[: n // 2]) / (n // 2)
    assert abs(first - n / 2) < 4 * n / (12 * n / 2) ** 0.5 * 0.5**0.5


def test_all_orders_of_few_examples_come_equally_often() -> None:
    counts = Counter(tuple(Permutation(3, 0, epoch)) for epoch in range(6000))
    assert len(counts) == 6
    assert all(abs(count - 1000) < 150 for count in counts.values())  # 5 standard deviations


def test_billions_of_examples_take_no_memory() -> None:
    order = Permutation(10**12, seed=1, epoch=2)
    assert len({order[position] for position in range(1000)}) == 1000


def test_the_order_of_this_version_stays_for_ever() -> None:
    assert list(Permutation(10, seed=0, epoch=0)) == [3, 4, 5, 2, 7, 8, 9, 0, 1, 6]


def test_no_examples_are_refused() -> None:
    with pytest.raises(InputError, match="at least one"):
        Permutation(0, 0, 0)
    with pytest.raises(InputError, match="position 3 of 3"):
        Permutation(3, 0, 0)[3]
