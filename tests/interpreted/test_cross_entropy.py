"""The Triton kernel of capped cross entropy against float64; the chunked loss that stands on it."""

import pytest
import torch

from griffin_lm.layers.embedding import Head
from griffin_lm.ops.backend import prefer
from griffin_lm.ops.cross_entropy import cross_entropy
from griffin_lm.training.loss import token_losses
from tests.interpreted.closeness import assert_as_near


def by(kernels, logits, targets, weight, cap):
    with prefer(kernels), torch.no_grad():
        return cross_entropy(logits.clone(), targets, weight, cap)


@pytest.mark.parametrize("cap", (0.0, 30.0, 3.0))
@pytest.mark.parametrize("words", (1, 2, 100, 4096, 9001))
def test_loss_and_gradient_are_as_near_to_float64_as_eager_ones(words, cap):
    torch.manual_seed(words)
    logits, weight = 5 * torch.randn(3, words), torch.rand(3)
    targets = torch.randint(0, words, (3,))
    mine = by("triton", logits, targets, weight, cap)
    eager = by("reference", logits, targets, weight, cap)
    exact = by("reference", logits.double(), targets, weight.double(), cap)
    assert_as_near(mine[0], eager[0], exact[0], "loss")
    assert torch.equal(mine[1], exact[1])
    assert_as_near(mine[2], eager[2], exact[2], "gradient")


def test_very_large_logits_and_a_target_nobody_expects():
    logits = torch.tensor([[1e4, -1e4, 0.0], [-3e4, -3e4, -3e4]])
    each, right, gradient = by("triton", logits, torch.tensor([1, 2]), torch.ones(2), 0.0)
    torch.testing.assert_close(each, torch.tensor([2e4, 1.0986123]))
    assert right.tolist() == [False, True]
    expected = torch.tensor([[1.0, -1.0, 0.0], [1 / 3, 1 / 3, -2 / 3]])
    torch.testing.assert_close(gradient, expected)


def test_bf16_logits_give_their_gradient_in_their_place_rounded_once():
    torch.manual_seed(0)
    logits, targets, weight = torch.randn(4, 50).bfloat16(), torch.arange(4), torch.rand(4)
    with prefer("triton"):
        held = logits.clone()
        _, _, gradient = cross_entropy(held, targets, weight, 30.0)
    assert gradient.data_ptr() == held.data_ptr()
    exact = by("reference", logits.double(), targets, weight.double(), 30.0)[2]
    assert_as_near(gradient, gradient, exact)


def test_a_row_alone_and_a_second_run_give_the_same_bits():
    torch.manual_seed(0)
    logits, targets, weight = torch.randn(5, 70), torch.arange(5), torch.rand(5)
    first, again = (by("triton", logits, targets, weight, 30.0) for _ in range(2))
    alone = by("triton", logits[1:2], targets[1:2], weight[1:2], 30.0)
    for a, b, c in zip(first, again, alone, strict=True):
        assert torch.equal(a, b) and torch.equal(a[1:2], c)


def test_the_chunked_loss_of_a_training_step_is_that_of_the_reference():
    torch.manual_seed(0)
    head = Head(60, 8, 30.0)
    head.initialise(torch.Generator().manual_seed(0))
    targets, weight = torch.randint(0, 60, (2, 7)), torch.rand(2, 7)
    found = []
    for kernels in ("triton", "reference"):
        hidden = torch.ones(2, 7, 8).cumsum(1).div(7).requires_grad_()
        with prefer(kernels):
            loss = token_losses(head, hidden, targets, weight, chunk=4)
            found.append([loss.total, *torch.autograd.grad(loss.total, (hidden, head.weight))])
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs)
