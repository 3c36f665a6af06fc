"""The prefix cache: what begins the same is read once, and no answer is changed by it."""

import random

import pytest
import torch

from griffin_lm.inference import LanguageModel
from griffin_lm.inference.engine import Engine, Finished, Mark, Request, RowOptions
from griffin_lm.inference.engine.cuts import all_cuts, canonical_cuts
from griffin_lm.models import State

BUDGET = 10**7


def state_tensors(state: State) -> list[torch.Tensor]:
    return [tensor for layer in state.layers for tensor in layer] + [state.read, state.position]


def serve(
    engine: Engine, ids: list[int], owner: str = "", marks: tuple[int, ...] = (), **more
) -> Finished:
    ends: list[Finished] = []
    options = RowOptions(max_new_tokens=0, **more)
    request = Request(ids=ids, options=options, owner=owner, marks=marks, keep_state=True)
    engine.submit(request, lambda event: ends.append(event))
    engine.run_until_idle()
    return ends[-1]


def ids_of(length: int, seed: int = 0) -> list[int]:
    return [1, *random.Random(seed).choices(range(9, 60), k=length - 1)]


@pytest.fixture
def engine(lm: LanguageModel) -> Engine:
    return Engine(lm, slots=2, chunk=8, cache_bytes=BUDGET)


def test_a_hit_leaves_the_very_bits_that_reading_does(engine: Engine) -> None:
    """Random prompts that share beginnings, in a small cache that must throw marks away."""
    rng = random.Random(1)
    engine.cache.budget = 9 * Mark(engine.lm.model(torch.ones(1, 40).long())[1]).nbytes
    stems = [ids_of(30, seed) for seed in range(3)]
    cold = Engine(engine.lm, slots=2, chunk=8)
    for _ in range(12):
        ids = rng.choice(stems)[: rng.randrange(5, 31)] + ids_of(rng.randrange(1, 20), rng.random())
        hot, read = serve(engine, ids), serve(cold, ids)
        assert hot.state is not None and read.state is not None
        pairs = zip(state_tensors(hot.state), state_tensors(read.state), strict=True)
        assert all(torch.equal(left, right) for left, right in pairs)
        assert read.cached_tokens == 0
    assert engine.cache.hits > 2 and engine.cache.evictions > 2
    assert engine.cache.nbytes <= engine.cache.budget


def test_the_same_beginning_with_another_end_is_found(engine: Engine) -> None:
    stem = ids_of(27)
    assert serve(engine, [*stem, 20, 21]).cached_tokens == 0
    again = serve(engine, [*stem, 30, 31, 32])
    assert again.cached_tokens == 24  # three chunks of eight
    assert serve(engine, [*stem, 20, 21]).cached_tokens == 24


def test_a_mark_that_was_asked_for_is_found_exactly_by_who_asks_again(engine: Engine) -> None:
    stem, cold = ids_of(61), Engine(engine.lm, slots=2, chunk=8)
    tails = [ids_of(60, seed)[1:] for seed in (5, 6)]
    first = serve(engine, [*stem, *tails[0]], marks=(21, 61))
    assert first.cached_tokens == 0 and first.written_tokens > 61
    again = serve(engine, [*stem, *tails[1]], marks=(21, 61))
    assert again.cached_tokens == 61
    assert serve(engine, [*stem[:30], 9, 9, 9], marks=(21,)).cached_tokens == 24
    # other pauses are another path, and what it finds was read with the same
    assert serve(engine, [*stem, *tails[1]]).cached_tokens < 21
    read = serve(cold, [*stem, *tails[1]], marks=(21, 61))
    assert again.state is not None and read.state is not None
    assert all(map(torch.equal, state_tensors(again.state), state_tensors(read.state)))


def test_marks_outside_a_prompt_are_none(engine: Engine) -> None:
    ids = ids_of(12)
    first, again = (serve(engine, ids, marks=(0, 12, 40)) for _ in range(2))
    assert (first.written_tokens, again.cached_tokens) == (8, 8)


def test_every_miss_has_a_reason(engine: Engine) -> None:
    serve(engine, ids_of(5))
    serve(engine, ids_of(20))
    engine.cache.budget = 0
    for seed in (0, 5):
        engine.cache.visit("", ids_of(20, seed), [8, 16])
    engine.cache.budget = 1
    assert engine.cache.misses["short"] == 1
    assert engine.cache.misses["new"] >= 2
    while engine.cache.nbytes:
        engine.cache._evict()
    assert serve(engine, ids_of(20)).cached_tokens == 0
    assert engine.cache.misses["evicted"] == 1


def test_owners_do_not_share(engine: Engine) -> None:
    serve(engine, ids_of(20), owner="a")
    assert serve(engine, ids_of(20), owner="b").cached_tokens == 0
    assert serve(engine, ids_of(20), owner="a").cached_tokens == 16


def test_markers_of_turns_are_places_to_pause_at() -> None:
    ids = [1, 90, 5, 6, 91, 7, 7, 7, 7, 90, 4, 91]
    assert canonical_cuts(ids, 8, {90, 91}) == [1, 4, 8, 9, 11]
    assert canonical_cuts(ids[:5], 8, {90, 91}) == [1, 4]
    assert canonical_cuts(ids, 4, ()) == [4, 8]
    assert all_cuts([4, 8], 12) == [4, 8, 11]
    assert all_cuts([], 1) == [] and all_cuts([], 3) == [2]


@pytest.mark.parametrize("length", [1, 5, 8, 9, 30])
def test_a_mark_gives_back_the_state_to_the_bit(lm: LanguageModel, length: int) -> None:
    state = lm.model(torch.tensor([ids_of(length)]))[1].with_pending([3])
    back = Mark(state).state(lm.model)
    assert all(map(torch.equal, state_tensors(back), state_tensors(state)))
    assert back.pending is not None and back.pending.tolist() == [3]
    assert (Mark(state).nbytes < state.nbytes - 32) == (length < 8)
