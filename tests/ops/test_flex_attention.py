"""Windowed attention by FlexAttention, its own operations on a CPU: values, gradients, blocks."""

import pytest
import torch
from torch.nn.functional import pad

from griffin_lm.ops.attention import _reference, flex

# its plain version on a CPU says that it is for checking only, which is what is done here
pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")


def case(length, window, heads=4, kv_heads=1, dtype=torch.float64):
    torch.manual_seed(length)
    shapes = ((length, heads), (length, kv_heads), (length, kv_heads), *[(window, kv_heads)] * 2)
    tensors = [torch.randn(3, *shape, 16, dtype=dtype) for shape in shapes]
    read = torch.tensor([0, 5, 10 * window + 3])
    starts = torch.rand(3, length) < 0.02
    position = torch.arange(length).expand(3, -1) + read[:, None]
    begin = torch.where(starts, torch.arange(length), -1).cummax(1).values
    position = torch.where(begin >= 0, torch.arange(length) - begin, position)
    return tensors, read, position.clamp(max=window)


@pytest.mark.parametrize("length, window", ((1, 3), (100, 30), (128, 128), (300, 50), (260, 200)))
@pytest.mark.parametrize("heads, kv_heads", ((4, 1), (4, 2), (2, 2)))
def test_it_is_masked_attention(length, window, heads, kv_heads):
    """Its gradient is PyTorch's, on a GPU only: tests/gpu_check.py looks at it there."""
    tensors, read, seen = case(length, window, heads, kv_heads)
    torch.testing.assert_close(
        flex.windowed(*tensors, read, seen), _reference(*tensors, read, seen)
    )


@pytest.mark.parametrize("length, window", ((1, 3), (100, 30), (128, 128), (513, 200)))
def test_the_blocks_that_are_met_are_those_of_the_mask(length, window):
    """Held against the dense mask: none missing, none twice, the whole ones whole."""
    _, read, seen = case(length, window)
    keys = window + length
    first = (
        window + torch.arange(length) - torch.minimum(seen, read[:, None] + torch.arange(length))
    )
    key = torch.arange(keys)
    last = window + torch.arange(length)[:, None]
    dense = (key >= first[..., None]) & (key <= last)
    rows, columns = -(-length // 128), -(-keys // 128)
    spare = (0, columns * 128 - keys, 0, rows * 128 - length)
    cut = pad(dense, spare).view(3, rows, 128, columns, 128)
    some, every = cut.any(4).any(2), cut.all(4).all(2)
    partly, part_at, wholly, whole_at = flex.block_map(first, window, keys)
    for counts, indices, kind in ((wholly, whole_at, "whole"), (partly, part_at, "part")):
        listed = torch.zeros(3, rows, columns, dtype=torch.bool)
        for b in range(3):
            for row in range(rows):
                listed[b, row, indices[b, 0, row, : counts[b, 0, row]].long()] = True
        if kind == "whole":
            assert torch.equal(listed, every)
            whole = listed
        else:
            assert not (listed & whole).any()
            assert ((listed | whole) | ~some).all(), "a block that is seen was left out"


def test_a_width_that_it_does_not_take_is_named(monkeypatch):
    monkeypatch.setattr(flex, "find_spec", lambda _: True)
    assert flex.why_not(torch.zeros(1, 1, 1, 256)) is None
    assert "24 wide" in flex.why_not(torch.zeros(1, 1, 1, 24))


def test_a_query_sees_2049_keys_of_its_document():
    """RecurrentGemma's window: 2,048 earlier tokens and itself. Values say which were seen."""
    window, length = 2048, 3
    q, k = torch.zeros(1, length, 1, 16), torch.zeros(1, length, 1, 16)
    ring, read = torch.zeros(1, window, 1, 16), torch.tensor([5 * window])
    ring[:, 0], ring[:, 1], ring[:, 2] = 1.0, 10.0, 100.0  # the three oldest tokens
    position = torch.tensor([[9000, 9001, 0]])  # the third begins a document
    found = flex.windowed(q, k, k, ring, ring, read, position.clamp(max=window))
    expected = torch.tensor([111.0, 110.0, 0.0]) / 2049
    torch.testing.assert_close(found[0, :, 0, 0], expected)


def test_without_flex_attention_the_reason_is_that(monkeypatch):
    monkeypatch.setattr(flex, "find_spec", lambda name: None if "flex" in name else name)
    assert flex.why_not(torch.zeros(1, 1, 1, 256)) == "this PyTorch has no FlexAttention"
