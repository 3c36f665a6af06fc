"""Products with weights of 8 and 4 bits, held against the definition in float64."""

import pytest
import torch

from griffin_lm.errors import BackendUnavailable
from griffin_lm.ops import native
from griffin_lm.ops.backend import prefer
from griffin_lm.ops.quantized_linear import (
    definition,
    dequantize_int4,
    dequantize_int8,
    linear_int4,
    linear_int8,
    quantize_int4,
    quantize_int8,
)
from tests.ops.instruction_sets import instruction_set as instruction_set
from tests.ops.test_linear import SHAPES

compiled = pytest.mark.skipif(native.UNBUILT is not None, reason=str(native.UNBUILT))
each_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])


def operands(m: int, k: int, n: int, dtype: torch.dtype):
    torch.manual_seed(m + k + n)
    return torch.randn(m, k).to(dtype), torch.randn(n, k) / k**0.5, torch.randn(n)


def close(y: torch.Tensor, exact: torch.Tensor) -> bool:
    rounding = 2**-8 if y.dtype == torch.bfloat16 else 4e-6
    return bool(((y.double() - exact).abs() <= exact.abs() * rounding + 2e-5).all())


@compiled
@each_dtype
@pytest.mark.parametrize(("m", "k", "n"), SHAPES)
def test_the_kernels_are_the_definition(instruction_set, m, k, n, dtype):
    x, w, b = operands(m, k, n, dtype)
    eight, four = quantize_int8(w), quantize_int4(w)
    with prefer("native"), torch.no_grad():
        assert close(linear_int8(x, eight, b), definition.linear_int8(x, eight, b))
        assert close(linear_int4(x, four, n, b), definition.linear_int4(x, four, n, b))


@each_dtype
@pytest.mark.parametrize(("m", "k", "n"), SHAPES)
def test_the_reference_is_the_definition(m, k, n, dtype):
    x, w, b = operands(m, k, n, dtype)
    eight, four = quantize_int8(w), quantize_int4(w)
    with prefer("reference"):
        assert close(linear_int8(x, eight, b), definition.linear_int8(x, eight, b))
        assert close(linear_int4(x, four, n, b), definition.linear_int4(x, four, n, b))


@compiled
@pytest.mark.parametrize(("m", "k", "n"), SHAPES)
def test_a_row_has_the_same_bits_in_any_batch(instruction_set, m, k, n):
    x, w, b = operands(m, k, n, torch.float32)
    eight, four = quantize_int8(w), quantize_int4(w)
    with prefer("native"), torch.no_grad():
        for run in (lambda x: linear_int8(x, eight, b), lambda x: linear_int4(x, four, n, b)):
            whole = run(x)
            for row in range(m):
                assert torch.equal(run(x[row : row + 1])[0], whole[row])


@compiled
def test_every_instruction_set_gives_the_same_int8_bits():
    from tests.ops.instruction_sets import NAMES

    x, w, b = operands(20, 200, 50, torch.float32)
    eight, results = quantize_int8(w), []
    for name in NAMES:
        try:
            native.use(name)
        except BackendUnavailable:  # this machine has none of that name
            continue
        with prefer("native"), torch.no_grad():
            results.append(linear_int8(x, eight, b))
    native.use()
    assert all(torch.equal(results[0], other) for other in results)


def test_eight_bits_are_off_by_half_a_step_at_most():
    _, w, _ = operands(1, 200, 30, torch.float32)
    step = w.abs().amax(1, keepdim=True) / 127
    assert ((dequantize_int8(quantize_int8(w)) - w).abs() <= step * 0.5001).all()


def test_four_bits_lose_less_than_rounding_to_the_scale_of_the_extreme():
    torch.manual_seed(0)
    w = torch.randn(64, 96)
    groups = w.view(64, 3, 32)
    scale = groups.gather(2, groups.abs().argmax(2, keepdim=True)) / -8
    plain = ((groups / scale).round().clamp(-8, 7) * scale - groups).square().mean()
    ours = (dequantize_int4(quantize_int4(w), 64, 96) - w).square().mean()
    assert ours < 0.95 * plain
    assert ours.sqrt() < 0.12  # of weights with a standard deviation of 1


def test_rows_and_groups_of_zeros_stay_zeros():
    w = torch.zeros(16, 64)
    x = torch.randn(2, 64)
    assert torch.equal(dequantize_int8(quantize_int8(w)), w)
    assert torch.equal(dequantize_int4(quantize_int4(w), 16, 64), w)
    assert torch.equal(linear_int8(x, quantize_int8(w)), torch.zeros(2, 16))
    assert torch.equal(linear_int8(torch.zeros(2, 64), quantize_int8(w + 1)), torch.zeros(2, 16))


@compiled
def test_what_is_not_finite_stays_in_its_row(instruction_set):
    x, w, b = operands(6, 64, 48, torch.float32)
    x[2, 5], x[4, 1] = float("nan"), float("inf")
    with prefer("native"), torch.no_grad():
        for y in (linear_int8(x, quantize_int8(w), b), linear_int4(x, quantize_int4(w), 48, b)):
            assert y[[2, 4]].isnan().all()
            assert y[[0, 1, 3, 5]].isfinite().all()


def kept_bytes(call) -> tuple[torch.Tensor, int]:
    """What a call returns, and the bytes that autograd keeps for going backward."""
    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(t), t)[1], lambda t: t):
        return call(), sum(tensor.nbytes for tensor in kept)


@pytest.mark.parametrize("backend", ["auto", "reference", pytest.param("native", marks=compiled)])
@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_the_gradient_is_that_of_the_dequantised_product(kind: str, backend: str):
    x, w, b = operands(5, 70, 33, torch.float32)
    x, b, dy = x.requires_grad_(), b.requires_grad_(), torch.randn(5, 33)
    eight, four = quantize_int8(w), quantize_int4(w)
    dense = dequantize_int8(eight) if kind == "int8" else dequantize_int4(four, 33, 70)

    def product() -> torch.Tensor:
        return linear_int8(x, eight, b) if kind == "int8" else linear_int4(x, four, 33, b)

    with prefer(backend) if backend != "auto" else torch.enable_grad():
        y, kept = kept_bytes(product)
        with torch.no_grad():
            assert torch.equal(y, product())  # the same kernel serves, with or without a gradient
    y.backward(dy)
    torch.testing.assert_close(x.grad, dy @ dense, rtol=0, atol=0)
    torch.testing.assert_close(b.grad, dy.sum(0))
    assert kept == 0  # no dense copy of the weight waits for the way back


def test_small_steps_of_the_activations_move_the_product_along_its_gradient():
    x, w, _ = operands(4, 64, 16, torch.float32)
    four = quantize_int4(w)
    step = torch.randn_like(x)  # as large as x, so that rounding to 8 bits drowns in it
    x.requires_grad_()
    linear_int4(x, four, 16).sum().backward()
    moved = (linear_int4(x + step, four, 16) - linear_int4(x, four, 16)).sum()
    assert x.grad is not None
    torch.testing.assert_close((x.grad * step).sum(), moved.detach(), rtol=2e-2, atol=2e-1)


def test_in_bf16_the_gradient_is_in_bf16():
    x, w, _ = operands(3, 64, 16, torch.bfloat16)
    x.requires_grad_()
    linear_int8(x, quantize_int8(w)).sum().backward()
    assert x.grad is not None and x.grad.dtype == torch.bfloat16
