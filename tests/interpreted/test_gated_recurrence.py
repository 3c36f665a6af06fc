"""The Triton kernels of the gated recurrence: values, gradients, last states, chunks, edges."""

import pytest
import torch
from torch.nn.functional import softplus

from griffin_lm.ops.backend import prefer
from griffin_lm.ops.gated_recurrence import gated_rg_lru, triton_gpu
from griffin_lm.ops.gating import gated
from griffin_lm.ops.linear_scan.plan import Plan
from griffin_lm.ops.rg_lru import definition, rg_lru
from tests.interpreted.closeness import assert_as_near, assert_kernel, outcome

NAMES = ("x", "r", "i", "y", "Lambda", "h0")
LENGTHS = (1, 2, 3, 7, 8, 9, 17, 25)


def case(shape, dtype=torch.float32, starts=0.1):
    random = torch.Generator().manual_seed(sum(shape))
    x, r, i, y = (2 * torch.randn(shape, generator=random) for _ in range(4))
    batch, steps, width = shape
    begins = torch.rand(batch, steps, generator=random) < starts
    Lambda = 3 * torch.randn(width, generator=random) - 3
    h0 = torch.randn(batch, width, generator=random)
    return *(t.to(dtype) for t in (x, r, i, y)), Lambda, h0, begins


def both(begins, counts=None):
    """out and the last state in one tensor, of one dtype."""

    def run(x, r, i, y, Lambda, h0):
        out, last = gated_rg_lru(x, r, i, y, Lambda, begins, h0, counts)
        return torch.cat([out.to(last.dtype), last[:, None]], 1)

    return run


def inputs(given):
    x, r, i, y, Lambda, h0, begins = given
    return x, r, i, y, definition.C * softplus(Lambda), begins, h0


@pytest.mark.parametrize("starts", (0.0, 0.2, 1.0))
@pytest.mark.parametrize("length", LENGTHS)
def test_values_and_gradients_are_as_near_to_float64_as_eager_ones(length, starts):
    *given, begins = case((2, length, 3), starts=starts)
    made = assert_kernel(both(begins), given, NAMES)
    x, r, i, y, Lambda, h0 = given
    hs = definition.rg_lru(x, r, i, Lambda, begins, h0)
    exact = torch.cat([gated(y.double(), hs, "gelu"), hs[:, -1:]], 1)
    assert_as_near(made[0], made[0], exact)


@pytest.mark.parametrize("width", (1, 8, 65, 130))
def test_any_number_of_channels(width):
    *given, begins = case((1, 6, width))
    assert_kernel(both(begins), given, NAMES)


@pytest.mark.parametrize("counts", ([0, 5], [11, 1], [19, 0], [8, 16]))
def test_a_row_that_ends_early_leaves_the_state_it_had_there(counts):
    *given, begins = case((2, 19, 4))
    count = torch.tensor(counts)
    made = assert_kernel(both(begins, count), given, NAMES)
    h0 = given[-1]
    for row, length in enumerate(counts):
        if length == 0:
            assert torch.equal(made[0][row, -1], h0[row])


def test_bf16_comes_in_is_rounded_once_and_gradients_go_out_in_bf16():
    x, r, i, y, Lambda, h0, begins = case((2, 20, 5), torch.bfloat16)
    with prefer("triton"), torch.no_grad():
        out, last = gated_rg_lru(x, r, i, y, Lambda, begins, h0)
    hs = definition.rg_lru(x, r, i, Lambda, begins, h0)
    assert_as_near(out, out, gated(y.double(), hs, "gelu"))
    assert out.dtype == torch.bfloat16 and last.dtype == torch.float32
    given = (x, r, i, y, Lambda, h0)
    mine, exact = (
        outcome(both(begins), given, kernels, dtype)
        for kernels, dtype in (("triton", None), ("reference", torch.float64))
    )
    assert [t.dtype for t in mine[1:]] == [torch.bfloat16] * 4 + [torch.float32] * 2
    for name, a, b in zip(NAMES, mine[1:], exact[1:], strict=True):
        worst = float((a.double() - b).abs().max() / b.abs().max())
        assert worst < 2.0**-7, name


@pytest.mark.parametrize("counts", (None, [70, 37]))
@pytest.mark.parametrize("chunk", (16, 32))
def test_in_chunks_it_is_what_it_is_in_one_piece(chunk, counts):
    given = inputs(case((2, 70, 5)))
    g, g_last = torch.randn(2, 70, 5), torch.randn(2, 5)
    counts = None if counts is None else torch.tensor(counts)
    whole, cut = Plan(70, 1), Plan(chunk, -(-70 // chunk))
    one, two = (triton_gpu.launch(*given, counts, True, way) for way in (whole, cut))
    for a, b in zip(one[:2], two[:2], strict=True):
        torch.testing.assert_close(b, a, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(two[2][:, 1:], one[2][:, 1:], rtol=1e-5, atol=1e-6)
    ways = [
        triton_gpu.launch_gradient(*given, counts, one[2], g, g_last, way) for way in (whole, cut)
    ]
    for name, a, b in zip(NAMES, *ways, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-5, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("level", (-20.0, 0.0, 20.0, 50.0))
def test_extreme_gates_and_decays_stay_finite_and_right(level):
    x, r, i, y, _, h0, begins = case((1, 12, 4), starts=0.1)
    r[:, ::3], r[:, 1::3], i[:, ::2], y[:, ::5], y[:, 1::5] = 50.0, -50.0, -100.0, -60.0, 60.0
    given = (x, r, i, y, torch.full((4,), level), h0)
    mine = outcome(both(begins), given, "triton")
    exact = outcome(both(begins), given, "reference", torch.float64)
    for a, b, name in zip(mine, exact, ("value", *NAMES), strict=True):
        torch.testing.assert_close(
            a.double(), b, rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_the_slope_of_the_root_is_bounded_where_a_is_one():
    x, r, i, y, _, h0, begins = case((1, 3, 4), starts=0.0)
    grads = []
    for kernels in ("triton", "reference"):
        leaf = torch.full((4,), -25.0).requires_grad_()  # softplus: 1.4e-11
        with prefer(kernels):
            out, _ = gated_rg_lru(x, r, i, y, leaf, begins, h0)
            (found,) = torch.autograd.grad(out.sum(), leaf)
        grads.append(found)
    assert grads[0].isfinite().all() and (grads[1] != 0).all()
    torch.testing.assert_close(*grads, rtol=1e-4, atol=0)


def test_neither_infinity_nor_nan_passes_a_start_in_either_direction():
    x, r, i, y, rate, begins, h0 = inputs(case((1, 30, 4), starts=0.0))
    begins[:, 20] = True
    poor = x.clone()
    poor[:, 3], poor[:, 18] = torch.inf, torch.nan
    for way in (Plan(30, 1), Plan(16, 2)):
        spoilt = h0 + torch.inf
        out, last, saved = triton_gpu.launch(poor, r, i, y, rate, begins, spoilt, None, True, way)
        assert out[:, 20:].isfinite().all() and last.isfinite().all()
        assert saved[:, 3].isfinite().all()  # before step 24
        g = torch.zeros_like(out)
        g[:, 20:] = torch.nan
        _, _, saved = triton_gpu.launch(x, r, i, y, rate, begins, h0, None, True, way)
        dx, *_ = triton_gpu.launch_gradient(
            x, r, i, y, rate, begins, h0, None, saved, g, torch.full_like(h0, torch.nan), way
        )
        assert (dx[:, :20] == 0).all()


def test_cutting_a_text_anywhere_changes_no_bit():
    x, r, i, y, Lambda, h0, begins = case((2, 40, 5), torch.bfloat16)

    def by_triton(span, state):
        with prefer("triton"), torch.no_grad():
            cut = (t[:, span] for t in (x, r, i, y))
            return gated_rg_lru(*cut, Lambda, begins[:, span], state)

    whole, end = by_triton(slice(None), h0)
    for cut in (1, 7, 39):
        left, state = by_triton(slice(None, cut), h0)
        right, state = by_triton(slice(cut, None), state)
        assert torch.equal(torch.cat([left, right], 1), whole)
        assert torch.equal(state, end)


def test_the_states_are_the_bits_of_the_plain_kernel():
    x, r, i, y, Lambda, h0, begins = case((2, 40, 5))
    with prefer("triton"), torch.no_grad():
        _, last = gated_rg_lru(x, r, i, y, Lambda, begins, h0)
        assert torch.equal(last, rg_lru(x, r, i, Lambda, begins, h0)[:, -1])


def test_a_row_of_a_batch_is_the_row_alone_and_every_run_the_same_to_the_bit():
    given, way = inputs(case((3, 21, 5))), Plan(16, 2)
    g, g_last = torch.randn(3, 21, 5), torch.randn(3, 5)
    first = triton_gpu.launch(*given, None, True, way)
    runs = [triton_gpu.launch_gradient(*given, None, first[2], g, g_last, way) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))
    one = slice(1, 2)
    alone = [t if t.dim() == 1 else t[one] for t in given]
    made = triton_gpu.launch(*alone, None, True, way)
    assert all(
        torch.equal(a[:, 1:] if n == 2 else a, b[one][:, 1:] if n == 2 else b[one])
        for n, (a, b) in enumerate(zip(made, first, strict=True))
    )
    dx, *_ = triton_gpu.launch_gradient(*alone, None, made[2], g[one], g_last[one], way)
    assert torch.equal(dx, runs[0][0][one])


def test_views_of_any_strides_are_read_rightly():
    x, r, i, y, Lambda, h0, begins = case((2, 9, 4))
    views = [t.repeat_interleave(2, -1)[..., ::2] for t in (x, r, i, y)]
    with prefer("triton"), torch.no_grad():
        found = gated_rg_lru(*views, Lambda, begins, h0[:1].expand(2, -1))
        plain = gated_rg_lru(x, r, i, y, Lambda, begins, h0[:1].repeat(2, 1))
    assert all(torch.equal(a, b) for a, b in zip(found, plain, strict=True))


def test_no_rows_and_no_steps_give_empty_results():
    x, r, i, y, rate, begins, h0 = inputs(case((2, 4, 3)))
    rows = triton_gpu.launch(
        *(t[:0] for t in (x, r, i, y)), rate, begins[:0], h0[:0], None, True, Plan(4, 1)
    )
    assert rows[0].shape == (0, 4, 3)
    cut = [t[:, :0] for t in (x, r, i, y)]
    out, last, saved = triton_gpu.launch(*cut, rate, begins[:, :0], h0, None, True, Plan(1, 1))
    assert out.shape == (2, 0, 3) and torch.equal(last, h0)
    grads = triton_gpu.launch_gradient(
        *cut, rate, begins[:, :0], h0, None, saved, out, h0, Plan(1, 1)
    )
    assert torch.equal(grads[-1], h0)


def test_the_operation_is_one_that_torch_compile_may_call():
    x, r, i, y, rate, begins, h0 = inputs(case((1, 5, 3)))
    leaves = [tensor.requires_grad_() for tensor in (x, r, i, y, rate)]
    for counts in (None, torch.tensor([3])):
        torch.library.opcheck(
            torch.ops.griffin_lm.triton_gated_rg_lru.default,
            (*leaves, begins, h0, counts, True),
            raise_exception=True,
        )


def test_nothing_is_kept_where_no_gradient_is_wanted():
    given = inputs(case((2, 33, 3)))
    assert triton_gpu.launch(*given, None, False, Plan(33, 1))[2].numel() == 0
    assert triton_gpu.launch(*given, None, True, Plan(33, 1))[2].shape == (2, 5, 3)
