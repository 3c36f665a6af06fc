"""A few queries over the ring by the compiled library, held against the attention under a mask."""

import pytest
import torch

from griffin_lm.ops import attention, native
from griffin_lm.ops.attention import windowed_attention
from griffin_lm.ops.backend import prefer
from tests.ops.instruction_sets import instruction_set as instruction_set

pytestmark = pytest.mark.skipif(native.UNBUILT is not None, reason=str(native.UNBUILT))
SHAPES = [  # steps, heads, key heads, width, window
    (1, 10, 1, 256, 33), (1, 4, 2, 20, 8), (3, 6, 3, 33, 5), (16, 2, 1, 64, 40), (2, 1, 1, 1, 1),
]  # fmt: skip


def operands(steps, heads, kv_heads, width, window, dtype=torch.float64):
    torch.manual_seed(steps + heads + width)
    read = torch.tensor([0, window // 2, 5 * window + 3])

    def random(*shape):
        return torch.randn(3, *shape, dtype=torch.float64).to(dtype)

    q, (k, v) = random(steps, heads, width), (random(steps, kv_heads, width) for _ in range(2))
    rings = [random(window, kv_heads, width) for _ in range(2)]
    position = read[:, None] + torch.arange(steps)
    position[2] = torch.arange(steps) + 2  # a document that began two tokens before the call
    return q, k, v, *rings, read, position


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_the_attention_under_a_mask_in_float64(instruction_set, shape, dtype):
    wide = operands(*shape)
    rounded = [t.to(dtype) if t.is_floating_point() else t for t in wide]
    exact = windowed_attention(*(t.double() if t.is_floating_point() else t for t in rounded))
    with prefer("native"), torch.no_grad():
        mine = windowed_attention(*rounded)
    tolerance = {torch.float32: 2e-6, torch.bfloat16: 2**-8}[dtype]
    assert ((mine.double() - exact).abs() <= exact.abs() * tolerance + 2e-6).all()


def test_a_row_and_a_step_have_the_same_bits_in_any_batch(instruction_set):
    q, k, v, ring_k, ring_v, read, position = operands(1, 10, 1, 64, 20, torch.bfloat16)
    with prefer("native"), torch.no_grad():
        whole = windowed_attention(q, k, v, ring_k, ring_v, read, position)
        for row in range(3):
            one = slice(row, row + 1)
            alone = windowed_attention(*(t[one] for t in (q, k, v, ring_k, ring_v, read, position)))
            assert torch.equal(alone, whole[one])


def test_padding_with_any_position_stays_inside_the_memory():
    q, k, v, ring_k, ring_v, read, position = operands(4, 2, 1, 16, 6, torch.float32)
    position[:, 2:] = 10**12
    with prefer("native"), torch.no_grad():
        y = windowed_attention(q, k, v, ring_k, ring_v, read, position)
    assert y.shape == q.shape


def test_many_queries_go_to_the_attention_under_a_mask():
    inputs = operands(attention.FEW + 1, 2, 1, 16, 6, torch.float32)
    with torch.no_grad():
        with prefer("native"):
            mine = windowed_attention(*inputs)
        with prefer("reference"):
            assert torch.equal(mine, windowed_attention(*inputs))
