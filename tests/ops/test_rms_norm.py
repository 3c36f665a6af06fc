"""RMSNorm by the compiled kernel: the reference, its gradients, the same bits in any batch."""

import pytest
import torch

from griffin_lm.errors import BackendUnavailable
from griffin_lm.ops import native
from griffin_lm.ops.backend import prefer
from griffin_lm.ops.rms_norm import rms_norm
from tests.ops.gradients import assert_kernel_is_the_reference
from tests.ops.instruction_sets import instruction_set as instruction_set

# UNBUILT says why there is nothing compiled to hold against the reference
pytestmark = pytest.mark.skipif(native.UNBUILT is not None, reason=str(native.UNBUILT))
EPS = 1e-6
either_factor = pytest.mark.parametrize("offset", [True, False])


@either_factor
@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (2, 50, 16), (70, 200)])
def test_it_and_its_gradients_are_the_reference_in_float64(instruction_set, shape, offset):
    operands = torch.randn(shape), torch.randn(shape[-1])
    assert_kernel_is_the_reference(lambda x, s: rms_norm(x, s, EPS, offset), operands)


@either_factor
@pytest.mark.parametrize("scale_dtype", [torch.bfloat16, torch.float32])
def test_bf16_is_rounded_where_the_reference_rounds(instruction_set, offset, scale_dtype):
    x, scale = torch.randn(4, 96).bfloat16(), torch.randn(96).to(scale_dtype)
    with prefer("reference"):
        exact = rms_norm(x, scale, EPS, offset)
    with prefer("native"):
        y = rms_norm(x, scale, EPS, offset)
    assert y.dtype == torch.bfloat16
    apart = (y.float() - exact.float()).abs() > exact.float().abs() * 2**-8
    assert not apart.any() and (y != exact).float().mean() < 0.02  # fp32 rounds otherwise, rarely


@either_factor
def test_bf16_has_gradients_as_close_as_its_numbers(offset):
    x, scale = torch.randn(4, 96), torch.randn(96)
    slope, found = torch.randn(4, 96).bfloat16(), []
    for kernels in ("reference", "native"):
        leaves = [t.bfloat16().requires_grad_() for t in (x, scale)]
        with prefer(kernels):
            y = rms_norm(*leaves, EPS, offset)
        found.append(torch.autograd.grad(y, leaves, slope))
    for mine, theirs in zip(found[1], found[0], strict=True):
        assert mine.dtype == torch.bfloat16
        assert (mine - theirs).abs().max() <= 0.03 * theirs.abs().max()


def test_a_row_has_the_same_bits_in_any_batch(instruction_set):
    x, scale = torch.randn(300, 131), torch.randn(131)
    with prefer("native"):
        whole = rms_norm(x, scale, EPS, True)
        for begin, end in ((0, 1), (5, 100), (299, 300)):
            assert torch.equal(rms_norm(x[begin:end], scale, EPS, True), whole[begin:end])


def test_what_is_not_finite_stays_in_its_row():
    x, scale = torch.randn(3, 40), torch.randn(40)
    x[1, 3] = torch.nan
    with prefer("native"):
        y = rms_norm(x, scale, EPS, True)
    assert y[1].isnan().all() and y[[0, 2]].isfinite().all()


def test_no_rows_at_all_have_a_gradient_of_zero():
    x, scale = torch.zeros(0, 8, requires_grad=True), torch.ones(8, requires_grad=True)
    with prefer("native"):
        rms_norm(x, scale, EPS, True).sum().backward()
    assert scale.grad is not None and (scale.grad == 0).all()


def test_what_the_kernel_cannot_take_is_said():
    with prefer("native"), pytest.raises(BackendUnavailable, match="float16"):
        rms_norm(torch.ones(2, 4).half(), torch.ones(4), EPS, True)
