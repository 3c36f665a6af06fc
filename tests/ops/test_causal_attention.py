"""Attention over a growing cache against a plain float64 softmax over each document's keys."""

import pytest
import torch

from griffin_lm.ops.attention.cache import with_slots, write_slots
from griffin_lm.ops.attention.causal import attend, causal_attention, next_token_attention
from tests.ops.test_attention import case, plain

FAR = 10**6  # a window that no text here fills


def grown(cache, ends, step=8):
    """As many slots as the longest row needs, in whole steps."""
    return with_slots(cache, max(-(-int(ends.max()) // step) * step, cache.shape[1]))


def read_in_pieces(q, k, v, position, pieces, in_place=False):
    batch, length = position.shape
    caches = [torch.zeros(batch, 0, *k.shape[2:], dtype=k.dtype) for _ in range(2)]
    outs = []
    for begin in range(0, length, pieces):
        part = slice(begin, begin + pieces)
        place = position[:, part]
        count = torch.full((batch,), place.shape[1])
        after = [
            write_slots(grown(cache, place[:, -1] + 1), new[:, part], place, count, in_place)
            for cache, new in zip([c.clone() for c in caches], (k, v), strict=True)
        ]
        if place.shape[1] == 1:
            outs.append(next_token_attention(q[:, part], *after, place))
        else:
            outs.append(causal_attention(q[:, part], k[:, part], v[:, part], *caches, place))
        caches = after
    return torch.cat(outs, 1)


@pytest.mark.parametrize("pieces", (1, 2, 7, 16, 17, 1000))
@pytest.mark.parametrize("heads, shared", ((1, 1), (4, 1), (6, 2), (3, 3)))
def test_any_chunking_equals_the_plain_softmax(pieces, heads, shared):
    q, k, v, starts, position = case(60, heads, shared)
    for in_place in (False, True):
        ours = read_in_pieces(q, k, v, position, pieces, in_place)
        torch.testing.assert_close(ours, plain(q, k, v, starts, FAR))


@pytest.mark.parametrize("length", (127, 128, 129, 300, 1100))
def test_blocks_of_queries_join_without_a_seam(length):
    q, k, v, starts, position = case(length, heads=4, shared=2, starts=0.01)
    for pieces in (length, 200):
        ours = read_in_pieces(q, k, v, position, pieces)
        torch.testing.assert_close(ours, plain(q, k, v, starts, FAR))


def test_the_mask_of_a_block_is_bounded_whatever_the_length(monkeypatch):
    seen = []

    def watch(q, k, v, visible):
        seen.append(visible.numel() * q.shape[2] // k.shape[2])
        return attend(q, k, v, visible)

    monkeypatch.setattr("griffin_lm.ops.attention.causal.attend", watch)
    q, k, v, _, position = case(2000, heads=8, shared=2)
    cache = torch.zeros(2, 0, 2, 8, dtype=torch.float64)
    causal_attention(q, k, v, cache, cache, position)
    assert max(seen) <= 2 * 512 * 2000


def one_by_one(cache, new, position, count):
    """What a written cache holds, a token at a time; slots behind the document are zero."""
    cache = cache.clone()
    for row in range(cache.shape[0]):
        for t in range(int(count[row])):
            cache[row, position[row, t]] = new[row, t]
            cache[row, position[row, t] + 1 :] = 0
    return cache


@pytest.mark.parametrize("seed", range(20))
def test_writing_equals_writing_one_by_one_with_gaps_and_starts(seed):
    random = torch.Generator().manual_seed(seed)
    length = int(torch.randint(1, 14, (), generator=random))
    before = torch.randint(0, 6, (4,), generator=random)
    count = torch.randint(0, length + 1, (4,), generator=random)
    starts = torch.rand(4, length, generator=random) < 0.15
    steps = torch.arange(length).expand(4, length)
    since = torch.where(starts, steps, -1).cummax(1).values
    position = torch.where(since >= 0, steps - since, before[:, None] + steps)
    slots = int((position.gather(1, (count - 1).clamp(min=0)[:, None])[:, 0] + 1).max()) + 6
    used = torch.arange(slots) < before[:, None]
    cache = torch.randn(4, slots, 2, 3, generator=random) * used[..., None, None]
    new = torch.randn(4, length, 2, 3, generator=random)
    roomy = with_slots(cache, slots + length)
    expected = one_by_one(roomy, new, position, count)
    assert torch.equal(write_slots(roomy, new, position, count), expected)
    small = write_slots(cache, new, position, count)
    assert torch.equal(small, expected[:, :slots])
    kept = roomy.clone()
    written = write_slots(kept, new, position, count, in_place=True)
    assert written is kept
    end = position.gather(1, (count - 1).clamp(min=0)[:, None])[:, 0] + 1
    here = torch.arange(slots + length) < torch.where(count > 0, end, before)[:, None]
    here = here[..., None, None].expand_as(kept)
    assert torch.equal(written[here], expected[here])
    assert torch.equal(written[count == 0], roomy[count == 0])


def test_more_slots_are_zeros_and_fewer_are_the_first():
    cache = torch.randn(2, 5, 1, 3)
    assert torch.equal(with_slots(cache, 7)[:, :5], cache)
    assert not with_slots(cache, 7)[:, 5:].any()
    assert torch.equal(with_slots(cache, 2), cache[:, :2])


def test_its_gradients_equal_finite_differences_through_the_cache():
    q, k, v, _, _ = case(6, heads=2, width=2)
    caches = [torch.randn(2, 5, 1, 2, dtype=torch.float64) for _ in range(2)]
    position = torch.tensor([[5, 6, 7, 8, 9, 10], [2, 3, 0, 1, 2, 3]])
    inputs = [tensor.requires_grad_() for tensor in (q, k, v, *caches)]

    def run(q, k, v, cache_k, cache_v):
        count = torch.tensor([6, 5])
        after = write_slots(with_slots(cache_k, 11), k, position, count)
        return causal_attention(q, k, v, cache_k, cache_v, position), after

    assert torch.autograd.gradcheck(run, inputs)
