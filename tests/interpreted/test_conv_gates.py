"""The conv and both gates in one Triton kernel: as the three by themselves, and their gradients."""

import pytest
import torch

from griffin_lm.ops.backend import prefer
from griffin_lm.ops.causal_conv import causal_conv
from griffin_lm.ops.conv_gates import conv_gates
from griffin_lm.ops.linear.blocks import block_linear
from tests.interpreted.closeness import assert_as_near, assert_kernel

NAMES = ("u", "past", "w", "b", "a", "a_bias", "x", "x_bias")


def case(rows, steps, heads, block, taps=4, dtype=torch.float32):
    random = torch.Generator().manual_seed(rows * steps + block)
    width, square = heads * block, (heads, block, block)
    sizes = (
        *((rows, steps, width), (rows, taps - 1, width), (taps, width), (width,)),
        *(square, square[:2], square, square[:2]),
    )
    position = torch.randint(0, 6, (rows, steps), generator=random)
    return [torch.randn(size, generator=random).to(dtype) for size in sizes], position


def run(position):
    def together(u, past, w, b, *gates):
        return torch.cat(conv_gates(u, past, w, b, position, *gates), -1)

    return together


@pytest.mark.parametrize(
    "shape", ((2, 1, 1, 3), (2, 9, 2, 5), (1, 3, 3, 16), (1, 70, 1, 20), (3, 2, 1, 130))
)
def test_values_and_gradients_are_as_near_to_float64_as_eager_ones(shape):
    given, position = case(*shape)
    assert_kernel(run(position), given, NAMES)


@pytest.mark.parametrize("taps", (2, 3, 5))
def test_any_number_of_taps(taps):
    given, position = case(2, 5, 2, 4, taps)
    assert_kernel(run(position), given, NAMES)


def test_in_bf16_the_gates_see_the_rounded_conv():
    (u, past, w, b, a, a_bias, x, x_bias), position = case(2, 7, 2, 16, dtype=torch.bfloat16)
    with prefer("triton"), torch.no_grad():
        mixed, r, i = conv_gates(u, past, w, b, position, a, a_bias, x, x_bias)
        assert torch.equal(mixed, causal_conv(u, past, w, b, position))
    assert mixed.dtype == r.dtype == i.dtype == torch.bfloat16
    for found, gate, bias in ((r, a, a_bias), (i, x, x_bias)):
        with prefer("reference"):
            exact = block_linear(mixed.double(), gate.double(), bias.double())
        assert_as_near(found, found, exact)


def test_nothing_of_another_document_is_seen():
    given, position = case(1, 8, 1, 4)
    position[:] = torch.arange(8)
    position[:, 5:] = torch.arange(3)
    u, past = given[:2]
    u[:, :5], past[:] = torch.nan, torch.inf
    with prefer("triton"), torch.no_grad():
        found = conv_gates(*given[:4], position, *given[4:])
    assert all(part[:, 5:].isfinite().all() for part in found)


def test_a_second_run_gives_the_same_bits_and_so_does_the_conv_of_a_row_alone():
    """Of the gates a card is asked that: NumPy's product depends on a row's neighbours."""
    given, position = case(3, 5, 2, 8)
    with prefer("triton"), torch.no_grad():
        first, again = (conv_gates(*given[:4], position, *given[4:]) for _ in range(2))
        one = slice(1, 2)
        alone = conv_gates(given[0][one], given[1][one], *given[2:4], position[one], *given[4:])
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert torch.equal(alone[0], first[0][one])
    for a, b in zip(first, alone, strict=True):
        torch.testing.assert_close(a[one], b, rtol=1e-5, atol=1e-5)


def test_no_rows_give_empty_results():
    given, position = case(2, 3, 1, 4)
    with prefer("triton"):
        out = conv_gates(given[0][:0], given[1][:0], *given[2:4], position[:0], *given[4:])
    assert [tuple(part.shape) for part in out] == [(0, 3, 4)] * 3
