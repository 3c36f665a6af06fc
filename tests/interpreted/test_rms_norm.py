"""The Triton kernels of RMSNorm, alone and after a sum, against float64."""

import pytest
import torch

from griffin_lm.ops.backend import prefer
from griffin_lm.ops.rms_norm import add_rms_norm, rms_norm
from tests.interpreted.closeness import assert_kernel

SHAPES = ((1, 1), (3, 5), (2, 4, 16), (7, 100))
EPS = 1e-6


def operands(shape, dtype=torch.float32):
    torch.manual_seed(sum(shape))
    return tuple(
        torch.randn(size).to(dtype).float().to(dtype) for size in (shape, shape, shape[-1:])
    )


@pytest.mark.parametrize("offset", (True, False))
@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients_are_as_near_to_float64_as_eager_ones(shape, offset):
    x, _, scale = operands(shape)
    assert_kernel(lambda x, s: rms_norm(x, s, EPS, offset), (x, scale), ("x", "scale"))


@pytest.mark.parametrize("offset", (True, False))
@pytest.mark.parametrize("shape", SHAPES)
def test_after_a_sum_both_results_and_all_gradients_are(shape, offset):
    def both(x, added, scale):
        return torch.cat(add_rms_norm(x, added, scale, EPS, offset), -1)

    assert_kernel(both, operands(shape), ("x", "added", "scale"))


def test_bf16_is_rounded_once():
    x, _, scale = operands((4, 33), torch.bfloat16)
    made = assert_kernel(lambda x, s: rms_norm(x, s, EPS, True), (x, scale), ("x", "scale"))
    assert all(tensor.dtype == torch.bfloat16 for tensor in made)


@pytest.mark.parametrize("offset", (True, False))
def test_in_bf16_a_sum_and_its_norm_are_what_the_two_are_one_after_another(offset):
    x, added, scale = operands((5, 40), torch.bfloat16)
    with prefer("triton"), torch.no_grad():
        total, out = add_rms_norm(x, added, scale, EPS, offset)
        # to a step of bf16: the interpreter cuts digits off where a GPU rounds
        torch.testing.assert_close(total, x + added, rtol=2**-7, atol=0)
        assert torch.equal(out, rms_norm(total, scale, EPS, offset))


def test_a_row_alone_and_a_second_run_give_the_same_bits():
    x, _, scale = operands((6, 24))
    found = []
    for given in (x, x, x[2:3]):
        leaf, factor = given.clone().requires_grad_(), scale.clone().requires_grad_()
        with prefer("triton"):
            y = rms_norm(leaf, factor, EPS, True)
            found.append([y.detach(), *torch.autograd.grad(y.sin().sum(), (leaf, factor))])
    first, again, alone = found
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert torch.equal(first[0][2:3], alone[0]) and torch.equal(first[1][2:3], alone[1])


def test_views_and_empty_batches():
    x, _, scale = operands((4, 12))
    with prefer("triton"):
        assert torch.equal(
            rms_norm(x[:, ::2], scale[::2], EPS, True),
            rms_norm(x[:, ::2].contiguous(), scale[::2].contiguous(), EPS, True),
        )
        assert rms_norm(x[:0], scale, EPS, True).shape == (0, 12)
