"""Cross entropy by the compiled kernel, held against PyTorch's own in float64, gradient too."""

import pytest
import torch

from griffin_lm.errors import BackendUnavailable
from griffin_lm.ops import native
from griffin_lm.ops.backend import prefer
from griffin_lm.ops.cross_entropy import cross_entropy
from tests.ops.instruction_sets import instruction_set as instruction_set

# UNBUILT says why there is nothing compiled to hold against the reference
pytestmark = pytest.mark.skipif(native.UNBUILT is not None, reason=str(native.UNBUILT))
each_cap = pytest.mark.parametrize("cap", [0.0, 2.0, 30.0])


def problem(rows, words, size=4.0):
    torch.manual_seed(words)
    return size * torch.randn(rows, words), torch.randint(words, (rows,)), torch.rand(rows)


def exact(logits, targets, weight, cap):
    """PyTorch's: loss, and the gradient of the weighted sum at the logits before the cap."""
    leaf = logits.double().requires_grad_()
    capped = torch.tanh(leaf / cap) * cap if cap else leaf
    each = torch.nn.functional.cross_entropy(capped, targets, reduction="none")
    (gradient,) = torch.autograd.grad((each * weight.double()).sum(), leaf)
    return each.detach(), capped.argmax(-1) == targets, gradient


@each_cap
@pytest.mark.parametrize("kernels", ["reference", "native"])
@pytest.mark.parametrize(("rows", "words"), [(1, 1), (5, 15), (7, 1003)])
def test_loss_hits_and_gradient_are_pytorchs(instruction_set, rows, words, kernels, cap):
    given = problem(rows, words)
    loss, right, gradient = exact(*given, cap)
    with prefer(kernels):
        mine = cross_entropy(given[0].clone(), *given[1:], cap)
    assert (mine[0] - loss).abs().max() <= 1e-5 * loss.abs().max().clamp(min=1)
    assert torch.equal(mine[1], right)
    assert (mine[2] - gradient).abs().max() <= 2e-6


@each_cap
def test_bf16_is_computed_in_fp32_and_only_its_gradient_rounded(instruction_set, cap):
    logits, targets, weight = problem(4, 300)
    logits = logits.bfloat16()
    loss, right, gradient = exact(logits, targets, weight, cap)
    with prefer("native"):
        mine = cross_entropy(logits.clone(), targets, weight, cap)
    assert mine[0].dtype == torch.float32 and mine[2].dtype == torch.bfloat16
    torch.testing.assert_close(mine[0].double(), loss, rtol=1e-5, atol=1e-6)
    assert torch.equal(mine[1], right)
    assert ((mine[2] - gradient).abs() <= gradient.abs() * 2**-8 + 1e-6).all()


@pytest.mark.parametrize("cap", [0.0, 30.0])
def test_logits_of_any_size_give_a_finite_loss(instruction_set, cap):
    logits = torch.tensor([[1e30, -1e30, 0.0, 5.0] * 10])
    with prefer("native"):
        loss, _, gradient = cross_entropy(logits, torch.tensor([2]), torch.ones(1), cap)
    assert loss.isfinite().all() and gradient.isfinite().all()


@each_cap
@pytest.mark.parametrize("poison", [torch.nan, torch.inf])
def test_what_is_not_a_number_shows_in_its_row_and_in_no_other(instruction_set, cap, poison):
    logits, targets, weight = problem(3, 50)
    logits[1, 7] = poison if not cap else torch.nan  # a cap makes a number of infinity
    with prefer("native"):
        loss, _, gradient = cross_entropy(logits, targets, weight, cap)
    assert loss[1].isnan() and gradient[1].isnan().any()
    assert loss[[0, 2]].isfinite().all() and gradient[[0, 2]].isfinite().all()


def test_the_gradient_takes_the_place_of_the_logits():
    logits, targets, weight = problem(3, 50)
    with prefer("native"):
        gradient = cross_entropy(logits, targets, weight, 30.0)[2]
    assert gradient.data_ptr() == logits.data_ptr()


def test_what_the_kernel_cannot_take_is_said():
    logits, targets, weight = problem(3, 50)
    with prefer("native"), pytest.raises(BackendUnavailable, match="float64"):
        cross_entropy(logits.double(), targets, weight, 30.0)
