"""The Triton kernels of products with 8 and 4 bits against the float64 definition."""

import pytest
import torch

from griffin_lm.ops.backend import prefer
from griffin_lm.ops.quantized_linear import (
    definition,
    linear_int4,
    linear_int8,
    quantize_int4,
    quantize_int8,
    triton_gpu,
)

SIZES = ((1, 1, 1), (1, 32, 16), (3, 33, 17), (2, 100, 50), (16, 300, 40))


def case(size, dtype=torch.float32):
    rows, width, count = size
    torch.manual_seed(sum(size))
    x = torch.randn(rows, width).to(dtype)
    return x, torch.randn(count, width), torch.randn(count).to(dtype)


def both(kind, x, weight, bias):
    count = weight.shape[0]
    if kind == "int8":
        packed = quantize_int8(weight)
        with prefer("triton"), torch.no_grad():
            return linear_int8(x, packed, bias), definition.linear_int8(x, packed, bias)
    packed = quantize_int4(weight)
    with prefer("triton"), torch.no_grad():
        mine = linear_int4(x, packed, count, bias)
    return mine, definition.linear_int4(x, packed, count, bias)


@pytest.mark.parametrize("biased", (True, False))
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ("int8", "int4"))
def test_it_is_the_definition_to_a_few_roundings(kind, size, biased):
    x, weight, bias = case(size)
    mine, exact = both(kind, x, weight, bias if biased else None)
    assert (mine.double() - exact).abs().max() <= 2e-6 * exact.abs().max().clamp(min=1)


@pytest.mark.parametrize("kind", ("int8", "int4"))
def test_bf16_is_rounded_once(kind):
    mine, exact = both(kind, *case((3, 70, 20), torch.bfloat16))
    assert mine.dtype == torch.bfloat16
    assert ((mine.double() - exact).abs() <= exact.abs() * 2**-7 + 1e-6).all()


def test_activations_are_rounded_as_the_definition_does_ties_included():
    x = torch.tensor([[127.0, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 0.49999997, -127.0]])
    q, scale = triton_gpu.quantized(x, 16)
    expected, wide = definition.quantize_rows(x)
    assert torch.equal(q[:, :9].double(), expected) and (q[:, 9:] == 0).all()
    assert torch.equal(scale.double(), wide[:, 0])


def test_a_row_of_zeros_is_zero_and_a_row_alone_has_the_same_bits():
    x, weight, _ = case((4, 64, 32))
    x[1] = 0
    for run, packed in (
        (lambda x, w: linear_int8(x, w), quantize_int8(weight)),
        (lambda x, w: linear_int4(x, w, 32), quantize_int4(weight)),
    ):
        with prefer("triton"), torch.no_grad():
            y = run(x, packed)
            assert (y[1] == 0).all()
            assert torch.equal(run(x[2:3], packed), y[2:3])
            assert torch.equal(run(x, packed), y)


def test_many_rows_are_for_a_matrix_product_unless_this_kernel_is_named():
    x, weight, bias = case((17, 32, 16))
    assert "17 rows" in triton_gpu.why_not(x, quantize_int8(weight), None)
    mine, exact = both("int8", x, weight, bias)
    assert (mine.double() - exact).abs().max() <= 2e-6 * exact.abs().max()
