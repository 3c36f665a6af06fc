"""The Triton kernels of the gated product against float64."""

import pytest
import torch

from griffin_lm.ops.backend import prefer
from griffin_lm.ops.gating import gated
from tests.interpreted.closeness import assert_kernel


@pytest.mark.parametrize("activation", ("gelu", "silu"))
@pytest.mark.parametrize("shape", ((1,), (3, 5), (2, 3, 700)))
def test_values_and_gradients_are_as_near_to_float64_as_eager_ones(shape, activation):
    torch.manual_seed(0)
    gate, x = 3 * torch.randn(shape), torch.randn(shape)
    assert_kernel(lambda g, x: gated(g, x, activation), (gate, x), ("gate", "x"))


@pytest.mark.parametrize("activation", ("gelu", "silu"))
def test_far_from_zero_it_is_the_identity_or_nothing(activation):
    gate = torch.tensor([-1e4, -100.0, -20.0, 0.0, 20.0, 100.0, 1e4], requires_grad=True)
    with prefer("triton"):
        y = gated(gate, torch.ones(7), activation)
        (slope,) = torch.autograd.grad(y.sum(), gate)
    torch.testing.assert_close(y, gate.clamp(min=0).detach(), rtol=1e-6, atol=1e-6)
    expected = torch.tensor([0, 0, 0, 0.5, 1, 1, 1.0])
    torch.testing.assert_close(slope, expected, rtol=1e-6, atol=1e-6)


def test_a_bf16_gate_takes_states_in_fp32_and_rounds_once():
    gate, x = torch.randn(5, 9).bfloat16(), torch.randn(5, 9)
    made = assert_kernel(lambda g, x: gated(g, x, "gelu"), (gate, x), ("gate", "x"))
    assert [t.dtype for t in made] == [torch.bfloat16, torch.bfloat16, torch.float32]


def test_a_part_of_a_tensor_gives_the_bits_it_has_in_the_whole():
    gate, x = torch.randn(3, 1100), torch.randn(3, 1100)
    with prefer("triton"), torch.no_grad():
        whole = gated(gate, x, "gelu")
        assert torch.equal(whole[1], gated(gate[1], x[1], "gelu"))
        assert torch.equal(gated(gate[:, ::3], x[:, ::3], "gelu"), whole[:, ::3])
        assert gated(gate[:0], x[:0], "gelu").shape == (0, 1100)
