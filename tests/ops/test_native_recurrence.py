"""The compiled scan and RG-LRU, held against their definitions, gradients against float64."""

import pytest
import torch
from torch.nn.functional import softplus

from griffin_lm.ops import native
from griffin_lm.ops.backend import prefer
from griffin_lm.ops.linear_scan import definition as scan_definition
from griffin_lm.ops.rg_lru import definition, rg_lru
from tests.ops.gradients import assert_kernel_is_the_reference
from tests.ops.instruction_sets import instruction_set as instruction_set

pytestmark = pytest.mark.skipif(native.UNBUILT is not None, reason=str(native.UNBUILT))
SHAPES = [(1, 1, 1), (3, 100, 200), (2, 17, 128), (1, 63, 129), (2, 5, 16)]


def operands(shape: tuple[int, int, int], dtype: torch.dtype, spread: float = 3.0):
    torch.manual_seed(sum(shape))
    x, r, i = ((torch.randn(shape) * spread).to(dtype) for _ in range(3))
    batch, steps, width = shape
    starts = torch.rand(batch, steps) < 0.1
    return x, r, i, torch.randn(width) * 3 - 3, starts, torch.randn(batch, width)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("reverse", [False, True])
def test_the_scan_is_its_definition(instruction_set, shape, reverse):
    torch.manual_seed(0)
    x, a = torch.randn(shape), torch.rand(shape)
    a[torch.rand(shape) < 0.1] = 0
    h0 = torch.randn(shape[0], shape[2])
    flip = (lambda t: t.flip(1)) if reverse else (lambda t: t)
    exact = flip(scan_definition.scan(flip(x).double(), flip(a).double(), h0.double()))
    torch.testing.assert_close(native.scan(x, a, h0, reverse).double(), exact, rtol=1e-5, atol=1e-5)


def test_nothing_passes_where_the_decay_is_zero(instruction_set):
    x, a = torch.randn(1, 4, 8), torch.rand(1, 4, 8)
    a[:, 2] = 0
    x[:, 1] = float("inf")
    hs = native.scan(x, a, torch.full((1, 8), float("nan")))
    assert torch.equal(hs[:, 2], x[:, 2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_rg_lru_is_its_definition(instruction_set, shape, dtype):
    inputs = operands(shape, dtype)
    with prefer("native"):
        hs = rg_lru(*inputs)
    exact = definition.rg_lru(*inputs)
    torch.testing.assert_close(hs.double(), exact, rtol=1e-5, atol=2e-5)


def test_extremes_of_the_gates_are_finite_and_right(instruction_set):
    x, r, i, _, starts, h0 = operands((1, 12, 16), torch.float32)
    r[:, ::3], r[:, 1::3], i[:, ::2] = 50.0, -50.0, -100.0
    for level in (-20.0, 0.0, 20.0, 50.0):
        Lambda = torch.full((16,), level)
        with prefer("native"):
            hs = rg_lru(x, r, i, Lambda, starts, h0)
        exact = definition.rg_lru(x, r, i, Lambda, starts, h0)
        torch.testing.assert_close(hs.double(), exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_its_gradients_are_those_of_the_reference_in_float64(instruction_set, shape):
    x, r, i, Lambda, starts, h0 = operands(shape, torch.float32)
    assert_kernel_is_the_reference(
        lambda x, r, i, Lambda, h0: rg_lru(x, r, i, Lambda, starts, h0),
        (x, r, i, Lambda, h0),
        bound=5e-6,
    )


def test_under_autocast_x_is_narrower_than_its_gates(instruction_set):
    x, r, i, Lambda, starts, h0 = operands((2, 33, 40), torch.float32)
    leaves = [t.requires_grad_() for t in (x.bfloat16(), r, i)]
    found = []
    for kernels in ("native", "reference"):
        with prefer(kernels):
            hs = rg_lru(*leaves, Lambda, starts, h0)
        found.append([hs.detach(), *torch.autograd.grad(hs.sum(), leaves)])
    for mine, theirs, dtype in zip(
        *found, (torch.float32, torch.bfloat16, torch.float32, torch.float32), strict=True
    ):
        assert mine.dtype == theirs.dtype == dtype
        bound = 2**-7 if dtype == torch.bfloat16 else 1e-5
        assert (mine - theirs).abs().max() <= bound * theirs.abs().max().clamp(min=1)


def test_the_bounded_slope_is_used_where_a_is_one(instruction_set):
    x, r, i, _, starts, h0 = operands((1, 3, 16), torch.float32)
    starts[:] = False
    Lambda = torch.full((16,), -25.0)  # softplus: 1.4e-11, so 1 - a^2 rounds to almost nothing
    leaves = [t.clone().requires_grad_() for t in (x, r, i, Lambda, h0)]
    with prefer("native"):
        mine = torch.autograd.grad(rg_lru(*leaves[:4], starts, leaves[4]).sum(), leaves)
    with prefer("reference"):
        theirs = torch.autograd.grad(rg_lru(*leaves[:4], starts, leaves[4]).sum(), leaves)
    for a, b in zip(mine, theirs, strict=True):
        assert a.isfinite().all()
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)


def test_cutting_a_text_anywhere_changes_no_bit(instruction_set):
    x, r, i, Lambda, starts, h0 = operands((2, 40, 130), torch.bfloat16)
    with prefer("native"):
        whole = rg_lru(x, r, i, Lambda, starts, h0)
        for cut in (1, 7, 39):
            left = rg_lru(x[:, :cut], r[:, :cut], i[:, :cut], Lambda, starts[:, :cut], h0)
            right = rg_lru(x[:, cut:], r[:, cut:], i[:, cut:], Lambda, starts[:, cut:], left[:, -1])
            assert torch.equal(torch.cat([left, right], dim=1), whole)
        alone = rg_lru(x[1:], r[1:], i[1:], Lambda, starts[1:], h0[1:])
        assert torch.equal(alone[0], whole[1])


def test_the_rate_is_eight_softplus_lambda():
    x, r, i, Lambda, starts, h0 = operands((1, 2, 16), torch.float32)
    rate = definition.C * softplus(Lambda)
    mine = native.rg_lru(x, r, i, rate, starts, h0)
    torch.testing.assert_close(mine.double(), definition.rg_lru(x, r, i, Lambda, starts, h0))
