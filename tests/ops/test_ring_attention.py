"""Attention over the ring by the compiled library, held against the attention under a mask."""

import pytest
import torch

from griffin_lm.ops import native
from griffin_lm.ops.attention import windowed_attention, write_ring
from griffin_lm.ops.backend import prefer
from tests.ops.instruction_sets import instruction_set as instruction_set

pytestmark = pytest.mark.skipif(native.UNBUILT is not None, reason=str(native.UNBUILT))
SHAPES = [  # steps, heads, key heads, width, window
    (1, 10, 1, 256, 33), (1, 4, 2, 20, 8), (3, 6, 3, 33, 5), (16, 2, 1, 64, 40), (2, 1, 1, 1, 1),
    (70, 10, 1, 32, 33), (130, 3, 1, 16, 200), (100, 4, 4, 24, 7),
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(90, 10, 1, 32, 33), (40, 4, 2, 20, 8), (75, 1, 1, 48, 64)])
def test_a_query_has_the_same_bits_in_chunks_of_any_size(instruction_set, shape, dtype):
    wide = operands(*shape)
    q, k, v, *rings, read, _ = (t.to(dtype) if t.is_floating_point() else t for t in wide)
    length = q.shape[1]
    position = read[:, None] + torch.arange(length)
    position[1, 20:] = torch.arange(length - 20)  # a document ends amid a chunk
    with prefer("native"), torch.no_grad():
        whole = windowed_attention(q, k, v, *rings, read, position)
        for size in (1, 3, 17, 64):
            before, (ring_k, ring_v), outs = read, rings, []
            for begin in range(0, length, size):
                here = slice(begin, begin + size)
                inputs = q[:, here], k[:, here], v[:, here]
                outs.append(windowed_attention(*inputs, ring_k, ring_v, before, position[:, here]))
                count = torch.full((3,), inputs[0].shape[1])
                ring_k = write_ring(ring_k, inputs[1], before, count)
                ring_v = write_ring(ring_v, inputs[2], before, count)
                before = before + count
            assert torch.equal(torch.cat(outs, 1), whole), f"chunks of {size}"


def test_a_document_has_the_same_bits_behind_another(instruction_set):
    q, k, v, ring_k, ring_v, _, _ = operands(60, 4, 1, 32, 25, torch.float32)
    none, step = torch.zeros(3, dtype=torch.int64), torch.arange(60).expand(3, -1)
    behind = torch.cat([step[:, :23], step[:, :37]], 1)
    with prefer("native"), torch.no_grad():
        packed = windowed_attention(q, k, v, ring_k, ring_v, none, behind)[:, 23:]
        inputs = (t[:, 23:].contiguous() for t in (q, k, v))
        alone = windowed_attention(*inputs, ring_k, ring_v, none, step[:, :37])
    assert torch.equal(packed, alone)


def test_keys_that_are_not_seen_may_be_anything(instruction_set):
    q, k, v, ring_k, ring_v, _, _ = operands(40, 4, 1, 32, 25, torch.float32)
    none, step = torch.zeros(3, dtype=torch.int64), torch.arange(40).expand(3, -1)
    position = torch.cat([step[:, :15], step[:, :25]], 1)
    k[:, :15], v[:, :15], ring_k[:], ring_v[:] = (float("nan"),) * 4
    with prefer("native"), torch.no_grad():
        y = windowed_attention(q, k, v, ring_k, ring_v, none, position)
    assert y[:, 15:].isfinite().all()


def test_the_number_of_threads_changes_no_bit(instruction_set):
    inputs = operands(30, 10, 1, 32, 33, torch.float32)
    before, results = torch.get_num_threads(), []
    with prefer("native"), torch.no_grad():
        try:
            for threads in (1, 2, 5):
                torch.set_num_threads(threads)
                results.append(
                    [
                        windowed_attention(*inputs),
                        windowed_attention(
                            *(t[:, :1] if i in (0, 1, 2, 6) else t for i, t in enumerate(inputs))
                        ),
                    ]
                )
        finally:
            torch.set_num_threads(before)
    for other in results[1:]:
        assert all(
            torch.equal(mine, theirs) for mine, theirs in zip(results[0], other, strict=True)
        )


@pytest.mark.parametrize("width", (32, 256))
def test_one_query_in_bf16_does_not_meet_keys_that_it_does_not_see(instruction_set, width):
    q, k, v, ring_k, ring_v, _, _ = operands(1, 4, 1, width, 25, torch.bfloat16)
    read, position = torch.tensor([60, 61, 62]), torch.tensor([[9], [0], [24]])
    clean = [ring.clone() for ring in (ring_k, ring_v)]
    for row in range(3):
        seen = {int(read[row] - 1 - step) % 25 for step in range(int(position[row]))}
        for slot in set(range(25)) - seen:
            ring_k[row, slot], ring_v[row, slot] = float("nan"), float("inf")
    with prefer("native"), torch.no_grad():
        mine = windowed_attention(q, k, v, ring_k, ring_v, read, position)
        assert torch.equal(mine, windowed_attention(q, k, v, *clean, read, position))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_writing_a_ring_in_place_is_the_reference_to_the_bit(dtype):
    ring, new = torch.randn(3, 7, 2, 5).to(dtype), torch.randn(3, 4, 2, 5).to(dtype)
    read, count = torch.tensor([0, 5, 20]), torch.tensor([4, 3, 0])
    arguments, results = (new, read, count, True), []
    for kernels in ("native", "reference"):
        mine = ring.clone()
        with prefer(kernels), torch.no_grad():
            assert write_ring(mine, *arguments) is mine
        results.append(mine)
    assert torch.equal(*results) and not torch.equal(results[0], ring)
    assert torch.equal(results[0], write_ring(ring, new, read, count))
