"""The chunked cross entropy: equal to the plain one, and never a batch's logits in memory."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode

from griffin_lm.errors import TrainingError
from griffin_lm.layers.embedding import Embedding, Head, TiedHead
from griffin_lm.models import PRESETS, build
from griffin_lm.training.loss import token_losses

V, W = 37, 6


def heads(cap: float) -> list[Head | TiedHead]:
    torch.manual_seed(0)
    table, own = Embedding(V, W, scaled=False).double(), Head(V, W, cap).double()
    torch.nn.init.normal_(table.weight)
    torch.nn.init.normal_(own.weight)
    return [TiedHead(table, cap), own]


def problem() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    hidden = torch.randn(3, 5, W, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(3, 5) * (torch.rand(3, 5) < 0.7)
    return hidden, torch.randint(V, (3, 5)), weight


def plain(head: Any, hidden: Tensor, targets: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    logits = head(hidden)
    each = cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    return (each.view_as(targets) * weight).sum(), logits.argmax(-1) == targets


@pytest.mark.parametrize("cap", [0.0, 3.0])
@pytest.mark.parametrize("kind", [0, 1], ids=["tied", "own"])
@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_loss_hits_and_gradients_are_those_of_the_plain_one_in_float64(
    cap: float, kind: int, chunk: int
):
    head = heads(cap)[kind]
    hidden, targets, weight = problem()
    found = token_losses(head, hidden, targets, weight, chunk)
    wanted, right = plain(head, hidden, targets, weight)
    mine = torch.autograd.grad(found.total * 0.5, [hidden, head.weight])
    theirs = torch.autograd.grad(wanted * 0.5, [hidden, head.weight])
    torch.testing.assert_close(found.total, wanted, rtol=1e-13, atol=0)
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)
    counted = weight > 0
    assert torch.equal(found.right, right & counted)
    assert (found.each[~counted] == 0).all() and (found.each[counted] > 0).all()


def test_a_second_backward_pass_is_refused():
    hidden, targets, weight = problem()
    total = token_losses(heads(0.0)[0], hidden, targets, weight).total
    total.backward(retain_graph=True)
    with pytest.raises(TrainingError, match="backward once"):
        total.backward()


def test_a_head_that_is_more_than_its_matrix_is_called():
    """An adapter on the head, say: its logits count, made again going backward."""
    head = heads(3.0)[1]
    hidden, targets, weight = problem()
    doubled = head.register_forward_hook(lambda module, given, out: 2 * out)
    found = token_losses(head, hidden, targets, weight, 4)
    wanted, right = plain(head, hidden, targets, weight)
    mine = torch.autograd.grad(found.total, [hidden, head.weight])
    theirs = torch.autograd.grad(wanted, [hidden, head.weight])
    doubled.remove()
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)
    assert torch.equal(found.right, right & (weight > 0))


def test_a_frozen_head_gets_no_gradient_and_nothing_else_changes():
    head = heads(0.0)[1].requires_grad_(False)
    hidden, targets, weight = problem()
    token_losses(head, hidden, targets, weight, 4).total.backward()
    mine = hidden.grad
    hidden.grad = None
    plain(head, hidden, targets, weight)[0].backward()
    assert mine is not None and head.weight.grad is None
    torch.testing.assert_close(mine, hidden.grad, rtol=1e-12, atol=1e-14)


def test_no_weight_at_all_is_a_loss_of_zero_with_gradients_of_zero():
    head = heads(0.0)[0]
    hidden, targets, weight = problem()
    found = token_losses(head, hidden, targets, torch.zeros_like(weight))
    found.total.backward()
    assert found.total == 0 and hidden.grad is not None and not hidden.grad.any()


def test_under_autocast_products_are_bf16_and_sums_fp32():
    """Both loss and gradient within bf16's half digit of fp32's; the loss itself is fp32."""
    model = build("tiny-griffin")
    hidden = torch.randn(2, 64, 32, requires_grad=True)
    targets, weight = torch.randint(96, (2, 64)), torch.ones(2, 64)
    exact = token_losses(model.head, hidden, targets, weight)
    with torch.autocast("cpu", torch.bfloat16):
        found = token_losses(model.head, hidden, targets, weight)
    assert found.each.dtype == torch.float32
    torch.testing.assert_close(found.each, exact.each, rtol=0, atol=0.06)
    mine, theirs = (torch.autograd.grad(one.total, hidden)[0] for one in (found, exact))
    assert mine.dtype == torch.float32
    assert (mine - theirs).norm() < 0.02 * theirs.norm()


class Largest(TorchDispatchMode):
    """Notes the largest tensor that any operation makes."""

    numbers = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None):
        made = function(*args, **(kwargs or {}))
        for one in made if isinstance(made, tuple | list) else [made]:
            if isinstance(one, Tensor):
                self.numbers = max(self.numbers, one.numel())
        return made


@pytest.mark.parametrize("wrapped", [False, True])
def test_no_tensor_is_larger_than_the_head_or_one_chunk_of_logits(wrapped: bool):
    vocab, width, tokens, chunk = 4096, 8, 256, 16
    model = build(replace(PRESETS["tiny-hawk"], vocab=vocab, width=width))
    hook = model.head.register_forward_hook(lambda *_: None) if wrapped else None
    hidden = torch.randn(1, tokens, width, requires_grad=True)
    with Largest() as largest:
        found = token_losses(
            model.head, hidden, torch.randint(vocab, (1, tokens)), torch.ones(1, tokens), chunk
        )
        found.total.backward()
    if hook is not None:
        hook.remove()
    assert largest.numbers == chunk * vocab < tokens * vocab / 15


def test_the_chunk_follows_the_vocabulary():
    """2^25 logits at a time on a CPU: 128 tokens of 256k words."""
    vocab = 2**18
    head = Head(vocab, 1, 0.0)
    torch.nn.init.zeros_(head.weight)
    with Largest() as largest, torch.no_grad():
        token_losses(head, torch.zeros(1, 300, 1), torch.zeros(1, 300).long(), torch.ones(1, 300))
    assert largest.numbers == 2**25
