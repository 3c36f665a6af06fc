"""Attention in training, held against the attention under a mask in float64, gradients too."""

import pytest
import torch

from griffin_lm.ops import attention, native
from griffin_lm.ops.attention import band, windowed_attention
from tests.ops import gradients
from tests.ops.instruction_sets import instruction_set as instruction_set

pytestmark = pytest.mark.skipif(native.UNBUILT is not None, reason=str(native.UNBUILT))
SHAPES = [  # batch, steps, heads, key heads, width, window
    (1, 100, 8, 1, 12, 33),
    (3, 63, 4, 1, 16, 500),
    (2, 70, 6, 3, 5, 7),
    (1, 1, 2, 1, 8, 4),
    (2, 17, 4, 2, 64, 16),
    (1, 500, 10, 1, 80, 150),  # several blocks, and several pieces of the way back
]


def operands(batch, steps, heads, kv_heads, width, window):
    torch.manual_seed(steps + heads + width)
    read = torch.arange(batch) * (window // 2 + 1)

    def random(*shape):
        return torch.randn(batch, *shape, dtype=torch.float64)

    q, k, v = random(steps, heads, width), *(random(steps, kv_heads, width) for _ in range(2))
    rings = [random(window, kv_heads, width) for _ in range(2)]
    position = read[:, None] + torch.arange(steps)
    begun = steps // 3  # a new document in the last row
    position[-1, begun:] = torch.arange(steps - begun)
    return [q, k, v, *rings], read, position


def outcome(tensors, read, position, dtype, kernels, reach=None):
    """The attention, and its gradients at all five tensors."""
    return gradients.outcome(
        lambda *leaves: windowed_attention(*leaves, read, position, reach), tensors, dtype, kernels
    )


def assert_close(mine, exact):
    for a, b in zip(mine, exact, strict=True):
        assert a.isfinite().all()
        assert (a.double() - b).abs().max() <= 1e-5 * b.abs().max().clamp(min=1)


@pytest.mark.parametrize("shape", SHAPES)
def test_it_and_its_gradients_are_the_reference_in_float64(instruction_set, shape):
    given = operands(*shape)
    exact = outcome(*given, torch.float64, "reference")
    assert_close(outcome(*given, torch.float32, "native"), exact)


@pytest.mark.parametrize("shape", SHAPES)
def test_bf16_is_as_near_to_float64_as_bf16_can_say(instruction_set, shape):
    tensors, *where = operands(*shape)
    narrow = [t.bfloat16() for t in tensors]
    exact = outcome(narrow, *where, torch.float64, "reference")
    for mine, theirs in zip(outcome(narrow, *where, torch.bfloat16, "native"), exact, strict=True):
        assert mine.dtype == torch.bfloat16
        # where nothing depends on an input its exact gradient is 0, or what float64 leaves of it
        assert (mine - theirs).abs().max() <= 2**-7 * theirs.abs().max() + 1e-12


@pytest.fixture
def products_of_bf16():
    if not native.has_band():  # AVX-512 with BF16 alone has the kernel; elsewhere fp32 serves bf16
        pytest.skip("this processor does not multiply bf16")


def test_products_of_bf16_are_what_training_in_bf16_uses(products_of_bf16, monkeypatch):
    calls = []
    for name in ("band_forward", "band_backward"):
        run = getattr(native, name)
        monkeypatch.setattr(native, name, lambda *a, run=run: calls.append(len(a)) or run(*a))
    tensors, *where = operands(*SHAPES[0])
    outcome([t.bfloat16() for t in tensors], *where, torch.bfloat16, "native")
    assert calls == [5, 8]
    outcome(tensors, *where, torch.float32, "native")
    assert calls == [5, 8]


def test_products_of_bf16_have_the_same_bits_on_any_number_of_threads(products_of_bf16):
    tensors, *where = operands(*SHAPES[-1])
    narrow, before, found = [t.bfloat16() for t in tensors], torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            found.append(outcome(narrow, *where, torch.bfloat16, "native"))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize("width", [16, 48, 64, 100, 128, 256])
def test_products_of_bf16_take_any_width(products_of_bf16, width):
    tensors, *where = operands(2, 40, 6, 2, width, 50)
    narrow = [t.bfloat16() for t in tensors]
    exact = outcome(narrow, *where, torch.float64, "reference")
    for mine, theirs in zip(outcome(narrow, *where, torch.bfloat16, "native"), exact, strict=True):
        assert (mine - theirs).abs().max() <= 2**-7 * theirs.abs().max() + 1e-12


def test_products_of_bf16_survive_large_scores_and_slots_never_written(products_of_bf16):
    tensors, read, position = operands(2, 30, 4, 1, 16, 24)
    tensors[0] *= 1000
    tensors[3][0] = tensors[4][0] = 1e30  # row 0 has read nothing: its ring is not looked at
    narrow = [t.bfloat16() for t in tensors]
    mine = outcome(narrow, read, position, torch.bfloat16, "native")
    exact = outcome(narrow, read, position, torch.float64, "reference")
    assert (mine[0] - exact[0]).abs().max() <= 2**-7 * exact[0].abs().max()
    assert all(a.isfinite().all() for a in mine)


def test_no_rows_are_no_trouble_to_products_of_bf16(products_of_bf16):
    for q, k in (((0, 3, 2, 16), (0, 5, 1, 16)), ((2, 0, 2, 16), (2, 5, 1, 16))):
        leaves = [torch.randn(shape).bfloat16().requires_grad_() for shape in (q, k, k)]
        where = torch.zeros(q[:2], dtype=torch.int64)
        y = band.band_attention(*leaves, where, where)
        y.sum().backward()
        assert y.shape == q
        assert all(leaf.grad is not None and not leaf.grad.any() for leaf in leaves)


@pytest.mark.parametrize("shape", SHAPES[:3])
def test_blocks_of_any_size_come_to_the_same(monkeypatch, shape):
    given = operands(*shape)
    exact = outcome(*given, torch.float64, "reference")
    for fewest in (1, 8, 128):
        monkeypatch.setattr(band, "_BLOCKS", (fewest, fewest))
        assert_close(outcome(*given, torch.float32, "native"), exact)


def test_a_shorter_reach_hides_earlier_keys():
    given = operands(3, 40, 4, 1, 16, 20)
    reach = torch.tensor([0, 3, 100])
    exact = outcome(*given, torch.float64, "reference", reach)
    assert_close(outcome(*given, torch.float32, "native", reach), exact)


def test_large_scores_and_slots_never_written_do_no_harm():
    tensors, read, position = operands(2, 30, 4, 1, 16, 24)
    tensors[0] *= 1000
    tensors[3][0] = tensors[4][0] = 1e30  # row 0 has read nothing: its ring is not looked at
    mine = outcome(tensors, read, position, torch.float32, "native")
    exact = outcome(tensors, read, position, torch.float64, "reference")
    # scores of some thousands are rounded to 2e-4 in float32, whoever computes them
    assert (mine[0].double() - exact[0]).abs().max() < 2e-3
    assert all(a.isfinite().all() for a in mine)


def test_padding_with_any_position_stays_inside_the_memory():
    tensors, read, position = operands(2, 9, 2, 1, 16, 6)
    position[:, 5:] = 10**12
    assert outcome(tensors, read, position, torch.float32, "native")[0].shape == (2, 9, 2, 16)


def test_it_is_what_training_uses_in_bf16_too():
    q, k, v = (torch.randn(1, 8, 1, 4, requires_grad=True) for _ in range(3))
    assert band.why_not(q, k, v) is None
    assert band.why_not(*(t.bfloat16() for t in (q, k, v))) is None
    assert "float64" in str(band.why_not(*(t.double() for t in (q, k, v))))
    ring = torch.zeros(1, 4, 1, 4)
    y = windowed_attention(q, k, v, ring, ring, torch.zeros(1).long(), torch.arange(8)[None])
    names: set[str] = set()
    node = [y.grad_fn]
    while node:
        one = node.pop()
        if one is not None:
            names.add(type(one).__name__)
            node += [following for following, _ in one.next_functions]
    assert any("band_attention" in name for name in names)


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore:`torch.jit.script_method`:DeprecationWarning"
)  # torch.compile's own
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_it_is_the_same(dtype):
    tensors, read, position = operands(2, 70, 4, 1, 16, 24)
    given = [tensor.to(dtype) for tensor in tensors]
    eager = outcome(given, read, position, dtype, "auto")
    leaves = [t.requires_grad_() for t in given]
    # the part within: jaxtyping's checks, which tests turn on, are not for torch.compile
    whole = torch.compile(attention._banded, fullgraph=True)
    y = whole(*leaves, read, position.clamp(max=24))
    torch.manual_seed(0)
    g = torch.randn(y.shape, dtype=torch.float64).to(dtype)
    for a, b in zip([y, *torch.autograd.grad(y, leaves, g)], eager, strict=True):
        torch.testing.assert_close(a, b.to(dtype))


def test_autocast_does_not_reach_into_it():
    """Its products are in fp32, those of several key heads too, which are in batches."""
    tensors, read, position = operands(*SHAPES[2])
    given = [tensor.bfloat16() for tensor in tensors]
    plain = outcome(given, read, position, torch.bfloat16, "native")
    with torch.autocast("cpu", torch.bfloat16):
        cast = outcome(given, read, position, torch.bfloat16, "native")
    assert all(torch.equal(a, b) for a, b in zip(plain, cast, strict=True))
