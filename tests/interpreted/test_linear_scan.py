"""The Triton kernels of the linear scan against float64, forwards, backwards and in chunks."""

import pytest
import torch

from griffin_lm.ops.backend import prefer
from griffin_lm.ops.linear_scan import definition, linear_scan, triton_gpu
from griffin_lm.ops.linear_scan.plan import Plan
from tests.interpreted.closeness import assert_as_near, assert_kernel


def case(shape):
    torch.manual_seed(sum(shape))
    x, a = torch.randn(shape), torch.rand(shape)
    a[torch.rand(shape) < 0.1] = 0
    return x, a, torch.randn(shape[0], shape[2])


@pytest.mark.parametrize("shape", ((1, 1, 1), (2, 2, 3), (3, 16, 5), (2, 17, 8), (1, 70, 130)))
def test_values_and_gradients_are_as_near_to_float64_as_eager_ones(shape):
    x, a, h0 = case(shape)
    a[a == 0] = 0.5  # at a decay of 0 the gradient is a matter of its own: see below
    assert_kernel(linear_scan, (x, a, h0), ("x", "a", "h0"))


@pytest.mark.parametrize("reverse", (False, True))
@pytest.mark.parametrize("chunk", (16, 32))
def test_in_chunks_and_backwards_it_is_the_definition(chunk, reverse):
    x, a, h0 = case((2, 45, 5))

    def turned(tensor):
        return tensor.flip(1) if reverse else tensor

    exact = turned(definition.scan(turned(x).double(), turned(a).double(), h0.double()))
    one, two = (
        triton_gpu.launch(x, a, h0, reverse, way)
        for way in (Plan(45, 1), Plan(chunk, -(-45 // chunk)))
    )
    assert_as_near(one, one, exact)
    assert_as_near(two, one, exact)


def test_infinity_and_nan_do_not_pass_a_decay_of_zero_in_either_direction():
    x, a, h0 = case((1, 40, 3))
    a[:] = 0.5
    a[:, 25] = 0
    x[:, 3], x[:, 18], h0[:] = torch.inf, torch.nan, torch.inf
    for way in (Plan(40, 1), Plan(16, 3)):
        assert triton_gpu.launch(x, a, h0, False, way)[:, 25:].isfinite().all()
    x.requires_grad_()
    with prefer("triton"):
        linear_scan(x, a, h0)[:, 25:].sum().backward()
    assert x.grad.isfinite().all() and (x.grad[:, :25] == 0).all()


def test_a_row_alone_views_and_empty_ones():
    x, a, h0 = case((3, 20, 6))
    with prefer("triton"), torch.no_grad():
        whole = linear_scan(x, a, h0)
        assert torch.equal(linear_scan(x[1:2], a[1:2], h0[1:2]), whole[1:2])
        assert torch.equal(linear_scan(x[..., ::2], a[..., ::2], h0[:, ::2]), whole[..., ::2])
        assert linear_scan(x[:0], a[:0], h0[:0]).shape == (0, 20, 6)
