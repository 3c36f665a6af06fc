"""The Triton kernels of decode attention and of writing a ring, against the masked reference."""

import pytest
import torch

from griffin_lm.ops.attention import _reference, triton_gpu, windowed_attention, write_ring
from griffin_lm.ops.backend import prefer
from tests.interpreted.closeness import assert_as_near


def case(steps=1, batch=2, heads=5, kv_heads=1, width=16, window=40, dtype=torch.float32):
    torch.manual_seed(steps + heads + window)
    shapes = ((steps, heads), (steps, kv_heads), (steps, kv_heads), *[(window, kv_heads)] * 2)
    tensors = [torch.randn(batch, *shape, width).to(dtype) for shape in shapes]
    read = torch.tensor([0, 7, 3 * window + 5, 10**9][:batch] if batch > 1 else [3 * window])
    seen = torch.randint(0, window + 1, (batch, steps))
    seen = torch.minimum(seen, read[:, None] + torch.arange(steps))
    return *tensors, read, seen


def check(inputs, splits):
    mine = triton_gpu.decode(*inputs, splits=splits)
    exact = _reference(*(t.double() if t.is_floating_point() else t for t in inputs))
    assert_as_near(mine, _reference(*inputs), exact)


@pytest.mark.parametrize("splits", (1, 2, 3))
@pytest.mark.parametrize("steps", (1, 2, 5))
@pytest.mark.parametrize("heads, kv_heads", ((1, 1), (5, 1), (6, 2)))
def test_it_is_as_near_to_float64_as_masked_attention(steps, heads, kv_heads, splits):
    check(case(steps, 4, heads, kv_heads, window=150), splits)


@pytest.mark.parametrize("window", (1, 63, 64, 65))
@pytest.mark.parametrize("width", (3, 16, 40))
def test_any_window_and_any_width(window, width):
    check(case(2, 3, 4, 2, width, window), 1)


def test_bf16_is_rounded_once():
    check(case(3, 4, window=70, dtype=torch.bfloat16), 2)


def test_a_text_of_a_thousand_million_tokens_is_one_of_the_window():
    """The same ring, turned as the count asks: read enters only modulo the window."""
    q, k, v, ring_k, ring_v, _, seen = case(1, 1, window=40)
    found = []
    for read in (80, 40 * 10**8):
        given = (q, k, v, ring_k, ring_v, torch.tensor([read]), seen)
        found.append(triton_gpu.decode(*given, splits=2))
    assert torch.equal(*found)


def test_slots_that_nobody_may_see_are_not_read():
    q, k, v, ring_k, ring_v, _, _ = case(1, 1, window=40)
    read, seen = torch.tensor([7]), torch.tensor([[3]])
    clean = triton_gpu.decode(q, k, v, ring_k, ring_v, read, seen, splits=1)
    for ring in (ring_k, ring_v):
        ring[:, 7:], ring[:, :4] = torch.nan, torch.inf
    assert torch.equal(triton_gpu.decode(q, k, v, ring_k, ring_v, read, seen, splits=1), clean)


def test_a_row_alone_and_a_second_run_give_the_same_bits():
    inputs = case(2, 4, window=150)
    whole = triton_gpu.decode(*inputs, splits=2)
    assert torch.equal(triton_gpu.decode(*inputs, splits=2), whole)
    alone = triton_gpu.decode(*(tensor[2:3] for tensor in inputs), splits=2)
    assert torch.equal(alone, whole[2:3])


def test_through_the_front_door_views_are_read_rightly():
    q, k, v, ring_k, ring_v, read, seen = case(1, 2, width=16)
    wide = [torch.cat([t, t], -1)[..., ::2] for t in (q, k, v, ring_k, ring_v)]
    with prefer("reference"):
        expected = windowed_attention(*wide, read, seen)
    with prefer("triton"), torch.no_grad():
        mine = windowed_attention(*wide, read, seen)
    torch.testing.assert_close(mine, expected)


@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16), ids=str)
def test_writing_a_ring_is_the_reference_to_the_bit(dtype):
    ring, new = torch.randn(4, 9, 2, 5).to(dtype), torch.randn(4, 3, 2, 5).to(dtype)
    read, count = torch.tensor([0, 8, 10**9, 4]), torch.tensor([3, 2, 0, 1])
    rings = []
    for kernels in ("reference", "triton"):
        with prefer(kernels), torch.no_grad():
            rings.append(write_ring(ring.clone(), new, read, count, in_place=True))
    assert torch.equal(*rings)


def test_neither_a_gradient_nor_a_long_prompt_is_for_this_kernel():
    inputs = case(1)
    with prefer("triton"):
        inputs[0].requires_grad_()
        assert "FlexAttention" in triton_gpu.why_not(*inputs)
        inputs[0].requires_grad_(False)
        assert triton_gpu.why_not(*inputs) is None
        assert triton_gpu.why_not(*case(100)) is not None
