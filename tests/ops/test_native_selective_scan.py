"""The compiled selective scan is its definition on every instruction set, and its gradient too."""

import pytest
import torch
from torch.autograd import grad

from griffin_lm.errors import BackendUnavailable
from griffin_lm.ops import native
from griffin_lm.ops.backend import prefer
from griffin_lm.ops.selective_scan import compiled, definition, selective_scan
from tests.ops.instruction_sets import instruction_set as instruction_set
from tests.ops.test_selective_scan import NAMES, case, with_gradients

# what is held here is the compiled scan; without it the reference has test_selective_scan.py
pytestmark = pytest.mark.skipif(native.UNBUILT is not None, reason=str(native.UNBUILT))
SHAPES = [(1, 1, 1, 1), (2, 33, 16, 16), (3, 70, 65, 5), (1, 64, 129, 16), (2, 31, 7, 64)]


def of_shape(shape: tuple[int, int, int, int], dtype: torch.dtype = torch.float32):
    batch, length, width, states = shape
    return case(length, dtype, batch, width, states)


@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_its_definition(instruction_set, shape):
    inputs = of_shape(shape)
    with prefer("native"):
        results = selective_scan(*inputs)
    for mine, exact in zip(results, definition.scan(*inputs), strict=True):
        error = ((mine - exact).abs() / (1 + exact.abs())).max()
        assert error < 2e-6 * shape[3] ** 0.5


@pytest.mark.parametrize("shape", SHAPES)
def test_its_gradients_are_those_of_the_loop_in_float64(instruction_set, shape):
    inputs, exact = of_shape(shape), of_shape(shape, torch.float64)
    wanted = [with_gradients(each) for each in (inputs, exact)]
    with prefer("native"):
        y, h = selective_scan(*inputs)
    weights = torch.randn_like(y), torch.randn_like(h)
    mine = grad([y, h], wanted[0], weights)
    loop = grad(list(definition.scan(*exact)), wanted[1], [each.double() for each in weights])
    for name, one, other in zip(NAMES, mine, loop, strict=True):
        error = (one - other).abs().max() / other.abs().max().clamp(min=1e-6)
        assert error < 2e-5, f"{name}: {error}"


def test_the_bits_of_a_row_hang_neither_on_the_batch_nor_on_cuts_nor_on_threads(instruction_set):
    x, delta, A, B, C, starts, h0 = of_shape((3, 70, 130, 16))
    with prefer("native"):
        whole, end = selective_scan(x, delta, A, B, C, starts, h0)
        row = [t[1:2] for t in (x, delta, B, C, starts, h0)]
        alone, h = selective_scan(*row[:2], A, *row[2:])
        parts, state = [], h0
        for part in (slice(17), slice(17, 70)):
            y, state = selective_scan(
                x[:, part], delta[:, part], A, B[:, part], C[:, part], starts[:, part], state
            )
            parts.append(y)
        threads = torch.get_num_threads()
        torch.set_num_threads(3)
        again, _ = selective_scan(x, delta, A, B, C, starts, h0)
        torch.set_num_threads(threads)
    assert torch.equal(alone, whole[1:2]) and torch.equal(h, end[1:2])
    assert torch.equal(torch.cat(parts, 1), whole) and torch.equal(state, end)
    assert torch.equal(again, whole)


def test_decays_too_small_for_a_float_leave_nothing_and_make_no_nan(instruction_set):
    x, delta, A, B, C, starts, h0 = of_shape((1, 40, 16, 16))
    inputs = x, delta * 1e4, A, B, C, starts & False, h0
    wanted = with_gradients(inputs)
    with prefer("native"):
        y, h = selective_scan(*inputs)
    exact, _ = definition.scan(*(each.detach() for each in inputs))
    torch.testing.assert_close(y.double(), exact, rtol=1e-4, atol=1e-3)
    assert all(each.isfinite().all() for each in grad([y.sum() + h.sum()], wanted))


def test_float64_and_many_states_are_refused_by_name():
    with prefer("native"):
        with pytest.raises(BackendUnavailable, match="float32"):
            selective_scan(*of_shape((1, 3, 2, 2), torch.float64))
        with pytest.raises(BackendUnavailable, match="64 states"):
            selective_scan(*of_shape((1, 3, 2, 65)))


def test_torch_compile_calls_it_whole():
    inputs = of_shape((2, 40, 16, 16))
    wanted = with_gradients(inputs)
    # the part within: jaxtyping's checks, which tests turn on, are not for torch.compile
    whole = torch.compile(compiled.scan, fullgraph=True, backend="aot_eager")
    results: list[tuple[torch.Tensor, ...]] = []
    for run in (compiled.scan, whole):
        y, h = run(*inputs)
        results.append((y, h, *grad([y.sum() + h.sum()], wanted)))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)
