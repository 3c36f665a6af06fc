"""The Triton kernel of the block-diagonal map against float64."""

import pytest
import torch

from griffin_lm.ops.backend import prefer
from griffin_lm.ops.linear.blocks import block_linear
from tests.interpreted.closeness import assert_kernel


def case(rows, heads, inputs, outputs, dtype=torch.float32):
    torch.manual_seed(rows)
    shapes = ((rows, heads * inputs), (heads, inputs, outputs), (heads, outputs))
    return [torch.randn(shape).to(dtype) for shape in shapes]


@pytest.mark.parametrize(
    "sizes", ((1, 1, 1, 1), (3, 2, 5, 7), (17, 3, 16, 16), (40, 2, 70, 33), (130, 1, 8, 4))
)
def test_values_and_gradients_are_as_near_to_float64_as_eager_ones(sizes):
    assert_kernel(block_linear, case(*sizes), ("x", "w", "b"))


def test_bf16_is_summed_in_fp32_and_rounded_once():
    assert_kernel(block_linear, case(9, 2, 64, 64, torch.bfloat16), ("x", "w", "b"))


def test_nan_beyond_a_block_stays_there():
    x, w, b = case(5, 2, 6, 6)
    x[:, 6:] = torch.nan
    with prefer("triton"), torch.no_grad():
        y = block_linear(x, w, b)
    assert y[:, :6].isfinite().all() and y[:, 6:].isnan().all()


def test_leading_axes_views_and_empty_batches():
    x, w, b = case(6, 2, 8, 4)
    with prefer("triton"), torch.no_grad():
        flat = block_linear(x, w, b)
        assert torch.equal(block_linear(x.view(2, 3, 16), w, b).view(6, 8), flat)
        turned = w.transpose(1, 2).contiguous().transpose(1, 2)
        assert torch.equal(block_linear(x, turned, b), flat)
        assert block_linear(x[:0], w, b).shape == (0, 8)
        assert torch.equal(block_linear(x[2:3], w, b), flat[2:3])
