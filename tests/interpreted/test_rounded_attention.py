"""The Triton kernels of a cache in int8: rounding, and decode attention over it."""

import pytest
import torch

import griffin_lm as griffin
from griffin_lm.ops.attention.rounded import Rounded, restored, rounded, rounded_attention
from griffin_lm.ops.backend import prefer
from tests.interpreted.closeness import assert_as_near
from tests.interpreted.test_attention import case


def by(kernels, tensors, read, seen):
    q, *others = tensors
    with prefer("reference"):
        pairs = [rounded(other) for other in others]
    with prefer(kernels):
        return rounded_attention(q, *pairs, read, seen), pairs


@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16), ids=str)
@pytest.mark.parametrize("steps, heads, kv_heads", ((1, 5, 1), (3, 6, 2)))
def test_it_is_as_near_to_float64_as_attention_over_the_restored_keys(
    steps, heads, kv_heads, dtype
):
    *tensors, read, seen = case(steps, 4, heads, kv_heads, window=70, dtype=dtype)
    mine, pairs = by("triton", tensors, read, seen)
    wide = Rounded(*pairs[0]), Rounded(*pairs[1]), *pairs[2:]
    with prefer("reference"):
        eager = rounded_attention(tensors[0].float(), *wide, read, seen)
        exact = rounded_attention(tensors[0].double(), *wide, read, seen)
    assert_as_near(mine, eager, exact)


@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16), ids=str)
def test_it_rounds_to_the_bit_as_the_reference_does(dtype):
    x = torch.randn(3, 4, 2, 24).to(dtype)
    x[0, 0], x[1, 1, 0, :4] = 0, torch.tensor([127.0, 0.5, 1.5, 2.5])
    found = []
    for kernels in ("triton", "reference"):
        with prefer(kernels), torch.no_grad():
            found.append(rounded(x))
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)
    assert (restored(found[0], torch.float32)[0, 0] == 0).all()


def test_slots_that_nobody_may_see_are_not_read():
    q, k, v, ring_k, ring_v, _, _ = case(1, 1, window=40)
    read, seen = torch.tensor([7]), torch.tensor([[3]])
    pairs = [rounded(t) for t in (k, v, ring_k, ring_v)]
    with prefer("triton"), torch.no_grad():
        clean = rounded_attention(q, *pairs, read, seen)
        for ring in pairs[2:]:
            ring.scale[:, 7:], ring.scale[:, :4] = torch.nan, torch.inf
        assert torch.equal(rounded_attention(q, *pairs, read, seen), clean)


def test_a_whole_model_decodes_as_on_the_reference():
    tokens = torch.randint(0, 96, (2, 12), generator=torch.Generator().manual_seed(0))
    found = []
    for kernels in ("reference", "triton"):
        model = griffin.build("tiny-griffin", seed=3)
        model.kernels, model.cache = kernels, "int8"
        state, pieces = None, []
        with torch.no_grad():
            for part in tokens.split(3, 1):
                logits, state = model(part, state=state, donate=state is not None)
                pieces.append(logits)
        found.append(torch.cat(pieces, 1))
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-3)
