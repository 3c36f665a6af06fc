"""int4 fitted to the inputs that a matrix meets (GPTQ), held against rounding to nearest."""

import pytest
import torch

from griffin_lm.ops.quantized_linear import (
    Int4Weight,
    dequantize_int4,
    quantize_int4,
    quantize_int4_calibrated,
)
from griffin_lm.ops.quantized_linear.calibrated import compensation


def correlated(rows: int, columns: int) -> torch.Tensor:
    """Inputs of a few directions and a little noise, such as a trained model has."""
    torch.manual_seed(rows + columns)
    few = max(1, columns // 8)
    inputs = torch.randn(rows, few) @ torch.randn(few, columns)
    return inputs + 0.1 * torch.randn(rows, columns)


def error(x: torch.Tensor, w: torch.Tensor, rounded: Int4Weight) -> float:
    off = x @ (dequantize_int4(rounded, *w.shape) - w).T
    return float(off.square().mean() / (x @ w.T).square().mean())


@pytest.mark.parametrize(("n", "k"), [(48, 128), (16, 32), (37, 96), (5, 70), (64, 256)])
def test_products_with_such_inputs_are_off_by_less_than_half(n: int, k: int) -> None:
    x, w = correlated(2000, k), torch.randn(n, k)
    fitted, nearest = quantize_int4_calibrated(w, x.T @ x), quantize_int4(w)
    assert error(x, w, fitted) < 0.5 * error(x, w, nearest)


def test_inputs_that_have_nothing_to_do_with_one_another_leave_the_nearest() -> None:
    w = torch.randn(40, 96)
    fitted, nearest = quantize_int4_calibrated(w, torch.eye(96) * 3), quantize_int4(w)
    assert torch.equal(fitted.nibbles, nearest.nibbles)
    assert torch.equal(fitted.scale, nearest.scale)


def test_columns_that_met_only_zeros_are_rounded_to_nearest() -> None:
    x, w = correlated(500, 64), torch.randn(32, 64)
    x[:, 32:] = 0
    fitted = dequantize_int4(quantize_int4_calibrated(w, x.T @ x), 32, 64)
    assert torch.equal(fitted[:, 32:], dequantize_int4(quantize_int4(w), 32, 64)[:, 32:])
    assert not torch.equal(fitted[:, :32], dequantize_int4(quantize_int4(w), 32, 64)[:, :32])


def test_no_input_at_all_leaves_the_nearest() -> None:
    w = torch.randn(16, 64)
    fitted = quantize_int4_calibrated(w, torch.zeros(64, 64))
    assert torch.equal(fitted.nibbles, quantize_int4(w).nibbles)


def test_rows_do_not_depend_on_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    x, w = correlated(500, 64), torch.randn(48, 64)
    whole = quantize_int4_calibrated(w, x.T @ x)
    monkeypatch.setattr("griffin_lm.ops.quantized_linear.calibrated._PIECE", 16 * 64)
    pieces = quantize_int4_calibrated(w, x.T @ x)
    assert torch.equal(whole.scale, pieces.scale)
    assert torch.equal(whole.nibbles, pieces.nibbles)


def test_the_factor_is_that_of_the_inverse() -> None:
    x = correlated(500, 64).double()
    moment = x.T @ x
    damped = moment + 0.01 * moment.diagonal().mean() * torch.eye(64, dtype=torch.float64)
    factor = compensation(moment, 64).double()
    assert torch.equal(factor, factor.triu())
    exact = torch.linalg.inv(damped)
    assert (factor.T @ factor - exact).abs().max() < 1e-5 * exact.abs().max()
