"""The Triton kernels of the RG-LRU against float64: values, gradients, documents, chunks, edges."""

import pytest
import torch
from torch.nn.functional import softplus

from griffin_lm.ops.backend import prefer
from griffin_lm.ops.linear_scan.plan import Plan
from griffin_lm.ops.rg_lru import definition, rg_lru, triton_gpu
from tests.interpreted.closeness import assert_as_near, assert_kernel, outcome

LENGTHS = (1, 2, 3, 5, 15, 16, 17, 33, 65)
NAMES = ("x", "r", "i", "Lambda", "h0")


def case(shape, dtype=torch.float32, starts=0.1):
    random = torch.Generator().manual_seed(sum(shape))
    x, r, i = (2 * torch.randn(shape, generator=random) for _ in range(3))
    batch, steps, width = shape
    begins = torch.rand(batch, steps, generator=random) < starts
    Lambda = 3 * torch.randn(width, generator=random) - 3
    h0 = torch.randn(batch, width, generator=random)
    return x.to(dtype), r.to(dtype), i.to(dtype), Lambda, begins, h0


def by(kernels, x, r, i, Lambda, begins, h0):
    with prefer(kernels), torch.no_grad():
        return rg_lru(x, r, i, Lambda, begins, h0)


@pytest.mark.parametrize("starts", (0.0, 0.2, 1.0))
@pytest.mark.parametrize("length", LENGTHS)
def test_values_and_gradients_are_as_near_to_float64_as_eager_ones(length, starts):
    x, r, i, Lambda, begins, h0 = case((2, length, 3), starts=starts)
    made = assert_kernel(
        lambda x, r, i, Lambda, h0: rg_lru(x, r, i, Lambda, begins, h0),
        (x, r, i, Lambda, h0),
        NAMES,
    )
    assert_as_near(made[0], made[0], definition.rg_lru(x, r, i, Lambda, begins, h0))


@pytest.mark.parametrize("width", (1, 8, 65, 130))
def test_any_number_of_channels(width):
    x, r, i, Lambda, begins, h0 = case((1, 6, width))
    assert_kernel(
        lambda x, r, i, Lambda, h0: rg_lru(x, r, i, Lambda, begins, h0),
        (x, r, i, Lambda, h0),
        NAMES,
    )


def test_bf16_comes_in_and_gradients_go_out_in_bf16():
    x, r, i, Lambda, begins, h0 = case((2, 20, 5), torch.bfloat16)
    made = assert_kernel(
        lambda x, r, i, Lambda, h0: rg_lru(x, r, i, Lambda, begins, h0),
        (x, r, i, Lambda, h0),
        NAMES,
    )
    kinds = [tensor.dtype for tensor in made]
    assert kinds == [torch.float32, *[torch.bfloat16] * 3, torch.float32, torch.float32]


@pytest.mark.parametrize("chunk", (16, 32))
def test_in_chunks_it_is_what_it_is_in_one_piece(chunk):
    x, r, i, Lambda, begins, h0 = case((2, 70, 5))
    rate = definition.C * softplus(Lambda)
    g = torch.randn(x.shape)
    whole, cut = Plan(70, 1), Plan(chunk, -(-70 // chunk))
    exact = definition.rg_lru(x, r, i, Lambda, begins, h0)
    one = triton_gpu.launch(x, r, i, rate, begins, h0, whole)
    two = triton_gpu.launch(x, r, i, rate, begins, h0, cut)
    assert_as_near(two, one, exact)
    ways = [
        triton_gpu.launch_gradient(x, r, i, rate, begins, h0, one, g, way) for way in (whole, cut)
    ]
    for name, a, b in zip(("x", "r", "i", "rate", "h0"), *ways, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-5, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("level", (-20.0, 0.0, 20.0, 50.0))
def test_extreme_gates_and_decays_stay_finite_and_right(level):
    x, r, i, _, begins, h0 = case((1, 12, 4), starts=0.1)
    r[:, ::3], r[:, 1::3], i[:, ::2] = 50.0, -50.0, -100.0
    given = (x, r, i, torch.full((4,), level), h0)

    def run(x, r, i, Lambda, h0):
        return rg_lru(x, r, i, Lambda, begins, h0)

    mine, exact = outcome(run, given, "triton"), outcome(run, given, "reference", torch.float64)
    for a, b, name in zip(mine, exact, ("value", *NAMES), strict=True):
        torch.testing.assert_close(
            a.double(), b, rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_near_a_of_one_the_inputs_factor_keeps_its_digits():
    x, r, i, _, begins, h0 = case((1, 1, 4), starts=0.0)
    Lambda = torch.full((4,), -14.0)  # 1 - a^2 is about 1e-5 r
    h = by("triton", x, r, i, Lambda, begins, torch.zeros_like(h0)).double()
    log_a = -8 * r.double().sigmoid() * softplus(Lambda.double())
    exact = (-torch.expm1(2 * log_a)).sqrt() * i.double().sigmoid() * x.double()
    assert ((h - exact).abs() / exact.abs()).max() < 1e-6


def test_the_slope_of_the_root_is_bounded_where_a_is_one():
    x, r, i, _, begins, h0 = case((1, 3, 4), starts=0.0)
    Lambda = torch.full((4,), -25.0)  # softplus: 1.4e-11
    grads = []
    for kernels in ("triton", "reference"):
        leaf = Lambda.clone().requires_grad_()
        with prefer(kernels):
            (found,) = torch.autograd.grad(rg_lru(x, r, i, leaf, begins, h0).sum(), leaf)
        grads.append(found)
    assert grads[0].isfinite().all() and (grads[1] != 0).all()
    torch.testing.assert_close(*grads, rtol=1e-4, atol=0)


def test_neither_infinity_nor_nan_passes_a_start_in_either_direction():
    x, r, i, Lambda, begins, h0 = case((1, 30, 4), starts=0.0)
    begins[:, 20] = True
    x[:, 3], x[:, 18], h0[:] = torch.inf, torch.nan, torch.inf
    for way in (Plan(30, 1), Plan(16, 2)):
        rate = definition.C * softplus(Lambda)
        hs = triton_gpu.launch(x, r, i, rate, begins, h0, way)
        assert hs[:, 20:].isfinite().all()
        g = torch.zeros_like(hs)
        g[:, 20:] = torch.nan
        clean = torch.where(x.isfinite(), x, 0)
        dx, *_ = triton_gpu.launch_gradient(
            clean, r, i, rate, begins, torch.zeros_like(h0), hs.nan_to_num(), g, way
        )
        assert (dx[:, :20] == 0).all()


def test_cutting_a_text_anywhere_changes_no_bit():
    x, r, i, Lambda, begins, h0 = case((2, 40, 5), torch.bfloat16)
    whole = by("triton", x, r, i, Lambda, begins, h0)
    for cut in (1, 7, 39):
        left = by("triton", x[:, :cut], r[:, :cut], i[:, :cut], Lambda, begins[:, :cut], h0)
        rest = (tensor[:, cut:] for tensor in (x, r, i))
        right = by("triton", *rest, Lambda, begins[:, cut:], left[:, -1])
        assert torch.equal(torch.cat([left, right], 1), whole)


def test_a_row_of_a_batch_is_the_row_alone_and_every_run_the_same_to_the_bit():
    x, r, i, Lambda, begins, h0 = case((3, 21, 5))
    rate, g, way = definition.C * softplus(Lambda), torch.randn(x.shape), Plan(16, 2)
    hs = triton_gpu.launch(x, r, i, rate, begins, h0, way)
    first = triton_gpu.launch_gradient(x, r, i, rate, begins, h0, hs, g, way)
    again = triton_gpu.launch_gradient(x, r, i, rate, begins, h0, hs, g, way)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    one = slice(1, 2)
    alone = triton_gpu.launch(x[one], r[one], i[one], rate, begins[one], h0[one], way)
    assert torch.equal(alone, hs[one])
    dx, *_ = triton_gpu.launch_gradient(
        x[one], r[one], i[one], rate, begins[one], h0[one], hs[one], g[one], way
    )
    assert torch.equal(dx, first[0][one])


def test_views_of_any_strides_are_read_rightly():
    wide = [tensor.repeat_interleave(2, -1) for tensor in case((2, 9, 4))[:3]]
    *_, Lambda, begins, h0 = case((2, 9, 4))
    views = [tensor[..., ::2] for tensor in wide]
    assert not views[0].is_contiguous()
    turned = [tensor.transpose(1, 2).contiguous().transpose(1, 2) for tensor in views]
    expected = by("triton", *(tensor.contiguous() for tensor in views), Lambda, begins, h0)
    for given in (views, turned):
        assert torch.equal(by("triton", *given, Lambda, begins, h0), expected)
    same = h0[:1].expand(2, -1)  # a stride of 0
    assert torch.equal(
        by("triton", *views, Lambda, begins, same),
        by("triton", *views, Lambda, begins, same.contiguous()),
    )


def test_no_rows_and_no_steps_give_empty_results():
    x, r, i, Lambda, begins, h0 = case((2, 4, 3))
    none = by("triton", x[:0], r[:0], i[:0], Lambda, begins[:0], h0[:0])
    assert none.shape == (0, 4, 3)
    short = by("triton", x[:, :0], r[:, :0], i[:, :0], Lambda, begins[:, :0], h0)
    assert short.shape == (2, 0, 3)


def test_the_operation_is_one_that_torch_compile_may_call():
    x, r, i, Lambda, begins, h0 = case((1, 5, 3))
    rate = definition.C * softplus(Lambda)
    leaves = [tensor.requires_grad_() for tensor in (x, r, i, rate)]
    torch.library.opcheck(
        torch.ops.griffin_lm.triton_rg_lru.default, (*leaves, begins, h0), raise_exception=True
    )
