"""The causal conv against torch's grouped convolution, and at the borders of documents."""

import pytest
import torch

from griffin_lm.errors import BackendUnavailable
from griffin_lm.ops import native
from griffin_lm.ops.backend import prefer
from griffin_lm.ops.causal_conv import causal_conv, last_inputs
from tests.ops.gradients import assert_kernel_is_the_reference
from tests.ops.instruction_sets import instruction_set as instruction_set

# UNBUILT says why there is nothing compiled to hold against the reference
compiled = pytest.mark.skipif(native.UNBUILT is not None, reason=str(native.UNBUILT))


def operands(batch, steps, width, taps):
    """x, past, w and b; and positions: each row's begin otherwise, in the last a document does."""
    torch.manual_seed(steps)
    x, past = torch.randn(batch, steps, width), torch.randn(batch, taps - 1, width)
    position = torch.arange(batch)[:, None] + torch.arange(steps)
    position[-1, steps // 2 :] = torch.arange(steps - steps // 2)
    return [x, past, torch.randn(taps, width), torch.randn(width)], position


def test_it_equals_a_grouped_convolution_with_zeros_on_the_left():
    x, w, b = torch.randn(2, 9, 5), torch.randn(4, 5), torch.randn(5)
    position = torch.arange(9).expand(2, 9)
    padded = torch.nn.functional.pad(x.transpose(1, 2), (3, 0))
    exact = torch.nn.functional.conv1d(padded, w.T[:, None], b, groups=5).transpose(1, 2)
    torch.testing.assert_close(
        causal_conv(x, torch.full((2, 3, 5), torch.nan), w, b, position), exact
    )


def test_no_tap_reaches_into_another_document():
    x, w, b = torch.randn(1, 6, 2), torch.randn(4, 2), torch.randn(2)
    position = torch.tensor([[0, 1, 0, 1, 2, 3]])
    past = torch.full((1, 3, 2), torch.inf)
    alone = causal_conv(x[:, 2:], past, w, b, position[:, 2:])
    x[:, :2] = torch.nan
    assert torch.equal(causal_conv(x, past, w, b, position)[:, 2:], alone)


def test_the_inputs_kept_are_the_last_valid_ones_of_each_row():
    past = -torch.arange(1, 4).flip(0).expand(3, 3)[..., None].float()
    x = torch.arange(5).expand(3, 5)[..., None].float()
    kept = last_inputs(x, past, torch.tensor([0, 1, 5]))[..., 0]
    assert kept.tolist() == [[-3, -2, -1], [-2, -1, 0], [2, 3, 4]]
    for length in (1, 2, 3, 5):
        some = x[:, :length]
        full = torch.full((3,), length)
        assert torch.equal(last_inputs(some, past, None), last_inputs(some, past, full))


@compiled
@pytest.mark.parametrize("shape", [(1, 1, 3, 4), (3, 9, 130, 4), (2, 2, 5, 7), (2, 40, 8, 2)])
def test_the_kernel_and_its_gradients_are_the_reference_in_float64(instruction_set, shape):
    given, position = operands(*shape)
    assert_kernel_is_the_reference(lambda *leaves: causal_conv(*leaves, position), given)


@compiled
def test_in_bf16_the_kernel_rounds_once(instruction_set):
    given, position = operands(3, 9, 130, 4)
    narrow = [tensor.bfloat16() for tensor in given]
    with prefer("native"):
        y = causal_conv(*narrow, position)
    with prefer("reference"):
        exact = causal_conv(*(tensor.double() for tensor in narrow), position)
    assert y.dtype == torch.bfloat16
    assert ((y - exact).abs() <= exact.abs() * 2**-8 + 1e-6).all()


@compiled
def test_a_token_has_the_same_bits_however_the_text_is_cut(instruction_set):
    (x, past, w, b), position = operands(2, 12, 70, 4)
    with prefer("native"):
        whole = causal_conv(x, past, w, b, position)
        inputs = torch.cat([past, x], dim=1)
        for t in range(12):
            here = slice(t, t + 1)
            alone = causal_conv(x[:, here], inputs[:, t : t + 3], w, b, position[:, here])
            assert torch.equal(alone, whole[:, here])


@compiled
def test_what_the_kernel_cannot_take_is_said():
    (x, past, w, b), position = operands(1, 2, 3, 4)
    with prefer("native"), pytest.raises(BackendUnavailable, match="one dtype"):
        causal_conv(x, past, w.bfloat16(), b, position)
