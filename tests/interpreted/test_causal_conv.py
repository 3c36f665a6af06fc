"""The Triton kernels of the causal convolution: documents, pasts, gradients, against float64."""

import pytest
import torch

from griffin_lm.ops.backend import prefer
from griffin_lm.ops.causal_conv import causal_conv
from tests.interpreted.closeness import assert_kernel

NAMES = ("x", "past", "w", "b")


def case(steps, width=5, batch=2, taps=4, dtype=torch.float32):
    torch.manual_seed(steps)
    shapes = ((batch, steps, width), (batch, taps - 1, width), (taps, width), (width,))
    tensors = [torch.randn(shape).to(dtype) for shape in shapes]
    position = torch.randint(0, 6, (batch, steps))
    return tensors, position


@pytest.mark.parametrize("taps", (2, 4, 5))
@pytest.mark.parametrize("steps", (1, 2, 3, 17, 40))
def test_values_and_gradients_are_as_near_to_float64_as_eager_ones(steps, taps):
    tensors, position = case(steps, taps=taps)
    assert_kernel(lambda *t: causal_conv(*t, position), tensors, NAMES)


@pytest.mark.parametrize("width", (1, 16, 130))
def test_any_number_of_channels(width):
    tensors, position = case(6, width=width, batch=1)
    assert_kernel(lambda *t: causal_conv(*t, position), tensors, NAMES)


def test_bf16_is_rounded_once():
    tensors, position = case(9, dtype=torch.bfloat16)
    assert_kernel(lambda *t: causal_conv(*t, position), tensors, NAMES)


def test_nothing_of_an_earlier_document_or_an_unused_past_is_multiplied():
    (x, past, w, b), _ = case(8)
    position = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3]]).expand(2, -1)
    past[:], x[:, :4] = torch.nan, torch.inf
    with prefer("triton"), torch.no_grad():
        y = causal_conv(x, past, w, b, position)
    assert y[:, 4:].isfinite().all()


def test_a_row_alone_a_second_run_and_views_give_the_same_bits():
    (x, past, w, b), position = case(21, width=6, batch=3)
    with prefer("triton"):
        leaves = [t.clone().requires_grad_() for t in (x, past, w, b)]
        y = causal_conv(*leaves, position)
        grads = [torch.autograd.grad(y.sin().sum(), leaves, retain_graph=True) for _ in range(2)]
        assert all(torch.equal(one, two) for one, two in zip(*grads, strict=True))
        row = slice(1, 2)
        assert torch.equal(causal_conv(x[row], past[row], w, b, position[row]), y[row].detach())
        turned = x.transpose(1, 2).contiguous().transpose(1, 2)
        assert torch.equal(causal_conv(turned, past, w, b, position), y.detach())
        assert causal_conv(x[:0], past[:0], w, b, position[:0]).shape == (0, 21, 6)
