"""The two-level scan answers to the loop over T, gradients too."""

import pytest
import torch

from griffin_lm.ops.linear_scan import definition, linear_scan, reference
from tests.parity import record_parity

LENGTHS = (1, 2, 3, 4, 5, 15, 16, 17, 63, 64, 65, 127, 500)
DTYPES = (torch.float32, torch.float64, torch.complex64)


def case(length, dtype=torch.float64, batch=2, width=3, cuts=0.1):
    random = torch.Generator().manual_seed(length)
    wide = torch.complex128 if dtype.is_complex else torch.float64
    x = torch.randn(batch, length, width, generator=random, dtype=wide)
    a = torch.rand(batch, length, width, generator=random, dtype=torch.float64).to(wide)
    a = torch.where(torch.rand(batch, length, 1, generator=random) < cuts, 0, a)
    h0 = torch.randn(batch, width, generator=random, dtype=wide)
    return x.to(dtype), a.to(dtype), h0.to(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("length", LENGTHS)
def test_the_two_level_scan_equals_the_loop(length, dtype):
    x, a, h0 = case(length, dtype)
    wide = torch.complex128 if dtype.is_complex else torch.float64
    exact = definition.scan(x.to(wide), a.to(wide), h0.to(wide))
    error = float(((linear_scan(x, a, h0).to(wide) - exact).abs() / (1 + exact.abs())).max())
    check = f"scan, {str(dtype).removeprefix('torch.')}"
    record_parity(f"float64 definition | relative error | {check}", error, 2e-6)


@pytest.mark.parametrize("length", LENGTHS)
def test_its_gradients_equal_those_of_the_loop(length):
    inputs = [tensor.requires_grad_() for tensor in case(length)]
    weight = torch.randn(2, length, 3, dtype=torch.float64)
    ours = torch.autograd.grad((linear_scan(*inputs) * weight).sum(), inputs)
    theirs = torch.autograd.grad((definition.scan(*inputs) * weight).sum(), inputs)
    for mine, exact, name in zip(ours, theirs, ("x", "a", "h0"), strict=True):
        cut = inputs[1] == 0 if name == "a" else torch.zeros_like(mine, dtype=torch.bool)
        torch.testing.assert_close(mine.masked_fill(cut, 0), exact.masked_fill(cut, 0))


@pytest.mark.parametrize("dtype", (torch.float64, torch.complex128), ids=str)
def test_its_gradients_equal_finite_differences(dtype):
    inputs = [tensor.requires_grad_() for tensor in case(7, dtype, cuts=0.0)]
    assert torch.autograd.gradcheck(linear_scan, inputs)


def test_infinity_and_nan_do_not_pass_a_start():
    x, a, h0 = case(20, torch.float64, cuts=0.0)
    x[:, 3], x[:, 5], h0[:] = torch.inf, torch.nan, torch.inf
    a[:, 9] = 0
    x.requires_grad_()
    hs = linear_scan(x, a, h0)
    assert hs[:, 9:].isfinite().all()
    hs[:, 9:].sum().backward()
    assert x.grad.isfinite().all() and (x.grad[:, :9] == 0).all()


def test_a_decay_of_zero_everywhere_gives_back_the_input():
    x, a, h0 = case(33)
    assert torch.equal(linear_scan(x, torch.zeros_like(a), h0), x)


def test_a_batch_row_equals_the_same_row_alone_to_the_bit():
    x, a, h0 = case(65, torch.float32, batch=5)
    whole = linear_scan(x, a, h0)
    for row in range(5):
        one = slice(row, row + 1)
        assert torch.equal(whole[one], linear_scan(x[one], a[one], h0[one]))


def test_views_with_odd_strides_are_read_rightly():
    x, a, h0 = case(31, torch.float64, width=8)
    expected = linear_scan(x[..., 1::3].contiguous(), a[..., 1::3].contiguous(), h0[:, 1::3])
    assert torch.equal(linear_scan(x[..., 1::3], a[..., 1::3], h0[:, 1::3]), expected)


def test_an_empty_sequence_and_an_empty_batch_give_empty_results():
    x, a, h0 = case(4)
    assert linear_scan(x[:, :0], a[:, :0], h0).shape == (2, 0, 3)
    assert linear_scan(x[:0], a[:0], h0[:0]).shape == (0, 4, 3)


def test_no_element_of_unwritten_memory_is_read():
    x, a, h0 = case(50, torch.float32)
    assert torch.empty(3).isnan().all(), "conftest.py poisons new memory with NaN"
    assert reference.scan(x, a, h0).isfinite().all()


@pytest.mark.parametrize("reverse", (False, True))
def test_many_channels_walked_step_by_step_equal_the_two_levels(monkeypatch, reverse):
    x, a, h0 = case(40, torch.float32)
    exact = reference.scan(x, a, h0, reverse)
    monkeypatch.setattr(reference, "WIDE", 1)
    torch.testing.assert_close(reference.scan(x, a, h0, reverse), exact)
