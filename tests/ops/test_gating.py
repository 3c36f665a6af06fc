"""act(gate) * x by the compiled kernel: right, and the same bits wherever an element stands."""

import pytest
import torch
from torch.nn.functional import gelu, silu

from griffin_lm.errors import BackendUnavailable
from griffin_lm.ops import native
from griffin_lm.ops.backend import prefer
from griffin_lm.ops.gating import gated
from tests.ops.gradients import assert_kernel_is_the_reference
from tests.ops.instruction_sets import instruction_set as instruction_set

compiled = pytest.mark.skipif(native.UNBUILT is not None, reason=str(native.UNBUILT))
DTYPES = [  # of the gate, of x
    (torch.float32, torch.float32),
    (torch.bfloat16, torch.bfloat16),
    (torch.bfloat16, torch.float32),
]
each_pair = pytest.mark.parametrize(("gate_dtype", "x_dtype"), DTYPES)
each_activation = pytest.mark.parametrize("activation", ["gelu", "silu"])


def operands(width, gate_dtype, x_dtype):
    torch.manual_seed(width)
    gate, x = 4 * torch.randn(3, width), torch.randn(3, width)
    return gate.to(gate_dtype), x.to(x_dtype)


def exact(gate, x, activation):
    wide = gate.double()
    return (gelu(wide, approximate="tanh") if activation == "gelu" else silu(wide)) * x.double()


@compiled
@each_pair
@each_activation
@pytest.mark.parametrize("width", [1, 7, 64, 65, 9001])
def test_the_kernel_is_the_definition_rounded_once(
    instruction_set, width, activation, gate_dtype, x_dtype
):
    gate, x = operands(width, gate_dtype, x_dtype)
    with prefer("native"), torch.no_grad():
        y = gated(gate, x, activation)
    right = exact(gate, x, activation)
    rounding = 2**-8 if y.dtype == torch.bfloat16 else 1e-6
    assert y.dtype == gate_dtype
    assert ((y.double() - right).abs() <= right.abs() * rounding + 1e-6).all()


@compiled
@each_pair
@each_activation
def test_an_element_has_the_same_bits_wherever_it_stands(
    instruction_set, activation, gate_dtype, x_dtype
):
    gate, x = operands(300, gate_dtype, x_dtype)
    with prefer("native"), torch.no_grad():
        whole = gated(gate, x, activation)
        for begin, end in ((0, 1), (5, 100), (63, 66), (299, 300)):
            here = (slice(None), slice(begin, end))
            assert torch.equal(gated(gate[here], x[here], activation), whole[here])


@each_activation
def test_the_reference_is_pytorchs_own_and_has_a_gradient(activation):
    gate, x = operands(20, torch.float32, torch.float32)
    gate.requires_grad_()
    y = gated(gate, x, activation)
    torch.testing.assert_close(y.detach().double(), exact(gate.detach(), x, activation))
    y.sum().backward()
    assert gate.grad is not None


@compiled
@each_activation
@pytest.mark.parametrize("width", [1, 65, 3001])
def test_the_kernels_gradients_are_the_references_in_float64(instruction_set, width, activation):
    given = operands(width, torch.float32, torch.float32)
    assert_kernel_is_the_reference(lambda gate, x: gated(gate, x, activation), given)


@compiled
@each_pair
@each_activation
def test_gradients_have_the_dtypes_of_the_branches(activation, gate_dtype, x_dtype):
    leaves = [t.requires_grad_() for t in operands(90, gate_dtype, x_dtype)]
    slope = torch.randn(leaves[0].shape).to(gate_dtype)
    found = []
    for kernels in ("reference", "native"):
        with prefer(kernels):
            found.append(torch.autograd.grad(gated(*leaves, activation), leaves, slope))
    for mine, theirs, leaf in zip(found[1], found[0], leaves, strict=True):
        assert mine.dtype == leaf.dtype
        assert (mine.double() - theirs.double()).abs().max() <= 0.03 * theirs.abs().max()


@compiled
@each_activation
def test_far_out_it_is_a_line_and_zero_its_gradient_too(instruction_set, activation):
    gate = torch.tensor([-3e38, -1e15, -200.0, 200.0, 1e15], requires_grad=True)
    with prefer("native"):
        y = gated(gate, torch.ones(5), activation)
    y.sum().backward()
    torch.testing.assert_close(y.detach(), gate.detach().clamp(min=0))
    assert gate.grad is not None
    torch.testing.assert_close(gate.grad, torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0]))


@compiled
def test_what_is_not_finite_stays_where_it_is():
    gate, x = operands(70, torch.float32, torch.float32)
    gate[0, 3], x[1, 5] = float("nan"), float("inf")
    with prefer("native"), torch.no_grad():
        y = gated(gate, x, "gelu")
    assert y[0, 3].isnan() and y[1, 5].isinf()
    assert y.isfinite().sum() == y.numel() - 2


@compiled
def test_what_the_kernel_cannot_take_is_said():
    gate, x = operands(4, torch.float32, torch.float32)
    with prefer("native"), torch.no_grad(), pytest.raises(BackendUnavailable, match="float16"):
        gated(gate.half(), x.half(), "silu")
