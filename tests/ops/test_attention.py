"""Windowed attention against a plain float64 softmax over the keys that the paper allows."""

import pytest
import torch

from griffin_lm.ops.attention import newest_in_slots, windowed_attention, write_ring


def plain(q, k, v, starts, window):
    """All queries and keys at once: same document, not later, at most `window` earlier."""
    length, shared = q.shape[1], q.shape[2] // k.shape[2]
    k, v = (tensor.repeat_interleave(shared, dim=2) for tensor in (k, v))
    document = starts.cumsum(1)
    t = torch.arange(length)
    near = (t[:, None] >= t[None]) & (t[:, None] <= t[None] + window)
    visible = near & (document[:, :, None] == document[:, None, :])
    scores = torch.einsum("bthd,bshd->bhts", q, k) / q.shape[-1] ** 0.5
    weights = scores.masked_fill(~visible[:, None], -torch.inf).softmax(-1)
    return torch.einsum("bhts,bshd->bthd", weights, v)


def case(length, heads=4, shared=1, width=8, starts=0.05):
    random = torch.Generator().manual_seed(length)

    def draw(n):
        return torch.randn(2, length, n, width, generator=random, dtype=torch.float64)

    begins = torch.rand(2, length, generator=random) < starts
    begins[:, 0] = True
    t = torch.arange(length).expand(2, length)
    position = t - torch.where(begins, t, 0).cummax(1).values
    return draw(heads), draw(shared), draw(shared), begins, position


def read_in_pieces(q, k, v, position, window, pieces, in_place=False):
    batch, length = position.shape
    rings = [torch.zeros(batch, window, *k.shape[2:], dtype=k.dtype) for _ in range(2)]
    read, outs = torch.zeros(batch, dtype=torch.int64), []
    for begin in range(0, length, pieces):
        part = slice(begin, begin + pieces)
        new = position[:, part].shape[1]
        outs.append(
            windowed_attention(q[:, part], k[:, part], v[:, part], *rings, read, position[:, part])
        )
        count = torch.full_like(read, new)
        rings = [
            write_ring(ring, tensor[:, part], read, count, in_place)
            for ring, tensor in zip(rings, (k, v), strict=True)
        ]
        read = read + new
    return torch.cat(outs, 1)


@pytest.mark.parametrize("pieces", (1, 2, 7, 16, 17, 1000))
@pytest.mark.parametrize("heads, shared", ((1, 1), (4, 1), (4, 2), (3, 3)))
def test_any_chunking_equals_the_plain_softmax(pieces, heads, shared):
    q, k, v, starts, position = case(60, heads, shared)
    for in_place in (False, True):
        ours = read_in_pieces(q, k, v, position, 16, pieces, in_place)
        torch.testing.assert_close(ours, plain(q, k, v, starts, 16))


@pytest.mark.parametrize("length", (127, 128, 129, 300, 1100))
def test_blocks_of_queries_join_without_a_seam(length):
    q, k, v, starts, position = case(length, heads=2, starts=0.01)
    torch.testing.assert_close(
        read_in_pieces(q, k, v, position, 40, length), plain(q, k, v, starts, 40)
    )


def test_the_window_is_its_earlier_tokens_and_the_token_itself():
    window, length = 5, 20
    q = torch.zeros(1, length, 1, length)
    v = torch.eye(length)[None, :, None, :]
    position = torch.arange(length)[None]
    ring_k, ring_v = torch.zeros(1, window, 1, length), torch.zeros(1, window, 1, length)
    out = windowed_attention(q, q, v, ring_k, ring_v, torch.zeros(1, dtype=torch.int64), position)
    assert (out[0, -1, 0] > 0).nonzero()[:, 0].tolist() == list(range(14, 20))


def test_a_shorter_reach_narrows_the_window_of_its_row_only():
    q, k, v, starts, position = case(30, starts=0.0)
    rings = [torch.zeros(2, 10, 1, 8, dtype=torch.float64) for _ in range(2)]
    read = torch.zeros(2, dtype=torch.int64)
    out = windowed_attention(q, k, v, *rings, read, position, reach=torch.tensor([3, 10]))
    torch.testing.assert_close(out[:1], plain(q, k, v, starts, 3)[:1])
    torch.testing.assert_close(out[1:], plain(q, k, v, starts, 10)[1:])


def test_slots_hold_the_newest_tokens():
    held = newest_in_slots(torch.tensor([0, 3, 4, 6]), 4)
    assert (held[0] < 0).all()
    assert held[1].tolist()[:3] == [0, 1, 2] and held[1, 3] < 0
    assert held[2].tolist() == [0, 1, 2, 3]
    assert held[3].tolist() == [4, 5, 2, 3]


def test_its_gradients_equal_finite_differences_through_the_ring():
    q, k, v, _, position = case(6, heads=2, width=2)
    rings = [torch.randn(2, 3, 1, 2, dtype=torch.float64) for _ in range(2)]
    read = torch.tensor([5, 2])
    inputs = [tensor.requires_grad_() for tensor in (q, k, v, *rings)]
    assert torch.autograd.gradcheck(
        lambda q, k, v, rk, rv: windowed_attention(q, k, v, rk, rv, read, position + read[:, None]),
        inputs,
    )
