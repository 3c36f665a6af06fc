"""The RG-LRU against its float64 definition, at the extremes of its gates too."""

import pytest
import torch

from griffin_lm.ops.rg_lru import MAX_SLOPE, BoundedSqrt, rg_lru
from griffin_lm.ops.rg_lru import definition as definition_module
from tests.parity import record_parity


def case(length=40, dtype=torch.float32, starts=0.1, width=5, Lambda=(-3.0, 1.0), gate=1.0):
    random = torch.Generator().manual_seed(length)
    x, r, i = (
        torch.randn(2, length, width, generator=random, dtype=torch.float64) for _ in range(3)
    )
    low, high = Lambda
    lam = low + (high - low) * torch.rand(width, generator=random, dtype=torch.float64)
    begins = torch.rand(2, length, generator=random) < starts
    h0 = torch.randn(2, width, generator=random, dtype=torch.float64)
    tensors = [each.to(dtype) for each in (x, r * gate, i * gate, lam)]
    return *tensors, begins, h0.to(dtype)


@pytest.mark.parametrize("starts", (0.0, 0.1, 1.0))
@pytest.mark.parametrize("length", (1, 2, 17, 64, 129))
def test_it_equals_the_equations_of_the_paper(length, starts):
    inputs = case(length, starts=starts)
    exact = definition_module.rg_lru(*inputs)
    error = float(((rg_lru(*inputs).double() - exact).abs() / (1 + exact.abs())).max())
    record_parity("float64 definition | relative error | RG-LRU, float32", error, 5e-6)


@pytest.mark.parametrize("Lambda", (-20.0, 0.0, 20.0, 50.0))
@pytest.mark.parametrize("gate", (0.0, 50.0))
def test_extreme_gates_stay_finite_and_near_the_definition(Lambda, gate):
    inputs = case(30, Lambda=(Lambda, Lambda), gate=gate)
    for tensor in inputs[:4]:
        tensor.requires_grad_()
    hs = rg_lru(*inputs)
    # near a = 1 the definition's own 1 - a^2 keeps few digits even in float64
    torch.testing.assert_close(hs.double(), definition_module.rg_lru(*inputs), rtol=1e-4, atol=1e-5)
    hs.sum().backward()
    assert all(tensor.grad.isfinite().all() for tensor in inputs[:4])


def test_near_a_of_one_its_input_factor_keeps_its_digits_in_fp32():
    x, r, i, _, begins, h0 = case(1, starts=0.0)
    Lambda = torch.full((5,), -14.0)  # softplus(-14) = 8.3e-7: 1 - a^2 is about 1e-5 r
    h = rg_lru(x, r, i, Lambda, begins, torch.zeros_like(h0)).double()
    log_a = -8 * r.double().sigmoid() * torch.nn.functional.softplus(Lambda.double())
    exact = (-torch.expm1(2 * log_a)).sqrt() * i.double().sigmoid() * x.double()
    assert ((h - exact).abs() / exact.abs()).max() < 1e-5


def test_its_gradients_equal_finite_differences():
    x, r, i, Lambda, begins, h0 = case(6, torch.float64, starts=0.3)
    inputs = [tensor.requires_grad_() for tensor in (x, r, i, Lambda, h0)]
    assert torch.autograd.gradcheck(
        lambda x, r, i, Lambda, h0: rg_lru(x, r, i, Lambda, begins, h0), inputs
    )


def test_the_slope_of_the_root_is_capped_at_a_thousand():
    z = torch.tensor([0.0, 1e-12, 2.5e-7, 1.0], dtype=torch.float64, requires_grad=True)
    BoundedSqrt.apply(z).sum().backward()
    torch.testing.assert_close(
        z.grad, torch.tensor([MAX_SLOPE, MAX_SLOPE, MAX_SLOPE, 0.5]).double()
    )


def test_bf16_gates_still_give_an_fp32_recurrence():
    inputs = case(50, torch.bfloat16)
    hs = rg_lru(*inputs[:5], inputs[5].float())
    assert hs.dtype == torch.float32
    torch.testing.assert_close(hs.double(), definition_module.rg_lru(*inputs), rtol=1e-4, atol=1e-5)
