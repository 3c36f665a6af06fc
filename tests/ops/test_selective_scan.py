"""The chunked selective scan answers to the float64 loop, gradients too, in bounded memory."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from griffin_lm.ops.backend import prefer
from griffin_lm.ops.selective_scan import definition, reference, selective_scan
from tests.parity import record_parity

NAMES = ("x", "delta", "A", "B", "C", "h0")


def case(length, dtype=torch.float64, batch=2, width=3, states=4, cuts=0.1):
    random = torch.Generator().manual_seed(length)

    def normal(*shape):
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    x, delta = normal(batch, length, width), normal(batch, length, width).exp() / 10
    A, h0 = -normal(width, states).exp(), normal(batch, width, states)
    B, C = normal(batch, length, states), normal(batch, length, states)
    starts = torch.rand(batch, length, generator=random) < cuts
    return *(each.to(dtype) for each in (x, delta, A, B, C)), starts, h0.to(dtype)


def with_gradients(inputs):
    """The differentiable ones, in the order of NAMES."""
    return [each.requires_grad_() for each in inputs if each.is_floating_point()]


@pytest.fixture(params=("reference", "auto"), autouse=True)
def backend(request):
    """ "auto": the compiled one for float32, where it is built."""
    with prefer(request.param):
        yield


@pytest.fixture(params=(1, 100, 1 << 22), ids=lambda elements: f"{elements} elements a chunk")
def chunking(request, monkeypatch):
    """Chunks of sqrt(T) tokens, of a few more, and of everything."""
    monkeypatch.setattr(reference, "ELEMENTS", request.param)


@pytest.mark.parametrize("length", (1, 2, 5, 16, 63, 200))
def test_it_equals_the_loop(length, chunking):
    inputs = case(length, torch.float32)
    exact = definition.scan(*inputs)
    for mine, other in zip(selective_scan(*inputs), exact, strict=True):
        error = ((mine - other).abs() / (1 + other.abs())).max().item()
        record_parity("float64 definition | relative error | selective scan", error, 2e-6)


@pytest.mark.parametrize("length", (1, 2, 7, 40))
def test_its_gradients_equal_those_of_the_loop(length, chunking):
    inputs = case(length)
    wanted = with_gradients(inputs)
    y, h = selective_scan(*inputs)
    weights = torch.randn_like(y), torch.randn_like(h)
    results = [
        torch.autograd.grad([y, h], wanted, weights),
        torch.autograd.grad(definition.scan(*inputs), wanted, weights),
    ]
    for name, mine, exact in zip(NAMES, *results, strict=True):
        torch.testing.assert_close(mine, exact, msg=lambda text, name=name: f"{name}: {text}")


def test_its_gradients_equal_finite_differences():
    *tensors, starts, h0 = case(5, cuts=0.3)
    inputs = with_gradients([*tensors, h0])
    assert torch.autograd.gradcheck(
        lambda x, delta, A, B, C, h0: selective_scan(x, delta, A, B, C, starts, h0), inputs
    )


@pytest.mark.parametrize("cut", (1, 6, 19))
def test_two_calls_equal_one(cut):
    x, delta, A, B, C, starts, h = case(20)
    whole, end = selective_scan(x, delta, A, B, C, starts, h)
    ys = []
    for part in (slice(cut), slice(cut, None)):
        y, h = selective_scan(
            x[:, part], delta[:, part], A, B[:, part], C[:, part], starts[:, part], h
        )
        ys.append(y)
    torch.testing.assert_close(torch.cat(ys, 1), whole)
    torch.testing.assert_close(h, end)


def test_a_token_without_a_step_leaves_the_state_to_the_bit():
    x, delta, A, B, C, starts, h0 = case(9, torch.float32)
    _, h = selective_scan(x, delta * 0, A, B, C, starts & False, h0)
    assert torch.equal(h, h0)


def test_not_even_nan_passes_a_start_in_either_direction(chunking):
    x, delta, A, B, C, starts, h0 = case(20, cuts=0.0)
    starts[:, 11] = True
    clean, _ = selective_scan(x, delta, A, B, C, starts, h0)
    x[:, :11], h0[:] = torch.nan, torch.inf
    y, _ = selective_scan(x.requires_grad_(), delta, A, B, C, starts, h0.requires_grad_())
    assert torch.equal(y[:, 11:], clean[:, 11:])
    y[:, 11:].sum().backward()
    assert (h0.grad == 0).all() and (x.grad[:, :11] == 0).all() and x.grad.isfinite().all()


class Largest(TorchDispatchMode):
    """Notes the largest tensor that is made."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        sizes = [t.numel() for t in tree_leaves(result) if isinstance(t, torch.Tensor)]
        self.elements = max(self.elements, *sizes) if sizes else self.elements
        return result


def test_the_states_of_a_long_text_are_never_in_memory_at_once(monkeypatch):
    monkeypatch.setattr(reference, "ELEMENTS", 4000)
    inputs = case(900, torch.float32, width=8, states=10)
    wanted = with_gradients(inputs)
    with Largest() as largest:
        y, h = selective_scan(*inputs)
        torch.autograd.grad([y.sum() + h.sum()], wanted)
    largest_input = max(each.numel() for each in inputs)
    assert largest.elements <= max(largest_input, 4800)  # 30 tokens, the root of 900
    assert largest.elements * 8 <= 900 * h.numel()  # what all states would be


def test_no_tokens_give_no_outputs_and_the_state_as_it_was():
    x, delta, A, B, C, starts, h0 = case(3)
    y, h = selective_scan(x[:, :0], delta[:, :0], A, B[:, :0], C[:, :0], starts[:, :0], h0)
    assert y.shape == (2, 0, 3) and torch.equal(h, h0)


def test_under_autocast_it_stays_in_its_dtype_going_forward_and_back():
    results = []
    for enabled in (False, True):
        inputs = case(9, torch.float32)
        wanted = with_gradients(inputs)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            y, h = selective_scan(*inputs)
        results.append([y, h, *torch.autograd.grad(y.sum() + h.sum(), wanted)])
    assert all(map(torch.equal, *results))
