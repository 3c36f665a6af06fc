"""Products of bf16 and fp32 by the compiled kernels: right, and the same bits in any batch."""

import pytest
import torch

from griffin_lm.errors import BackendUnavailable
from griffin_lm.ops import native
from griffin_lm.ops.backend import prefer
from griffin_lm.ops.linear import linear
from griffin_lm.ops.linear.blocks import block_linear
from tests.ops.instruction_sets import instruction_set as instruction_set

pytestmark = pytest.mark.skipif(native.UNBUILT is not None, reason=str(native.UNBUILT))
SHAPES = [  # M, K, N: around the kernels' tiles of 16 and 32, and far from them
    (1, 64, 16), (3, 100, 37), (17, 2560, 33), (33, 96, 64), (40, 131, 100), (64, 256, 512),
    (5, 31, 7), (2, 1, 1), (16, 33, 257), (1, 7680, 48), (13, 1030, 70), (98, 515, 66),
]  # fmt: skip


each_dtype = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])


def operands(
    m: int, k: int, n: int, dtype: torch.dtype = torch.bfloat16
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(m + k + n)
    return (
        torch.randn(m, k).to(dtype),
        (torch.randn(n, k) / k**0.5).to(dtype),
        torch.randn(n).to(dtype),
    )


@each_dtype
@pytest.mark.parametrize(("m", "k", "n"), SHAPES)
def test_it_is_the_exact_product_rounded_once(instruction_set, m, k, n, dtype):
    x, w, b = operands(m, k, n, dtype)
    with prefer("native"), torch.no_grad():
        y = linear(x, w, b)
    exact = x.double() @ w.double().T + b.double()
    # half a unit in the last place of bf16, and what fp32 sums leave
    rounding = 2**-8 if dtype == torch.bfloat16 else 0
    assert ((y.double() - exact).abs() <= exact.abs() * rounding + 2e-5).all()


@each_dtype
@pytest.mark.parametrize(("m", "k", "n"), SHAPES)
def test_a_row_has_the_same_bits_in_any_batch(instruction_set, m, k, n, dtype):
    x, w, b = operands(m, k, n, dtype)
    with prefer("native"), torch.no_grad():
        whole = linear(x, w, b)
        for row in range(m):
            assert torch.equal(linear(x[row : row + 1], w, b)[0], whole[row])
        assert torch.equal(linear(x[m // 2 :], w, b), whole[m // 2 :])


@each_dtype
def test_the_number_of_threads_changes_no_bit(instruction_set, dtype):
    x, w, b = operands(37, 300, 700, dtype)
    before = torch.get_num_threads()
    with prefer("native"), torch.no_grad():
        try:
            results = []
            for threads in (1, 2, 5):
                torch.set_num_threads(threads)
                results.append(linear(x, w, b))
        finally:
            torch.set_num_threads(before)
    assert all(torch.equal(results[0], other) for other in results)


def test_leading_axes_and_strides_are_kept():
    x, w, _ = operands(24, 64, 48)
    with prefer("native"), torch.no_grad():
        flat = linear(x, w)
        assert torch.equal(linear(x.view(2, 3, 4, 64), w), flat.view(2, 3, 4, 48))
        spread = torch.stack([x, torch.full_like(x, float("nan"))], dim=1)[:, 0]
        assert torch.equal(linear(spread, w), flat)
        assert linear(x[:0], w).shape == (0, 48)


def test_more_rows_than_a_slice_holds_are_the_same_rows(instruction_set):
    x, w, b = operands(1100, 40, 37)
    with prefer("native"), torch.no_grad():
        whole = linear(x, w, b)
        for row in (0, 511, 512, 1099):
            assert torch.equal(linear(x[row : row + 1], w, b)[0], whole[row])


def test_what_is_not_a_number_stays_in_its_row():
    x, w, b = operands(40, 64, 48)
    x[7, 3] = float("nan")
    with prefer("native"), torch.no_grad():
        y = linear(x, w, b)
    assert y[7].isnan().all()
    assert torch.cat([y[:7], y[8:]]).isfinite().all()


def test_a_gradient_is_asked_of_pytorch():
    x, w, b = operands(3, 8, 4)
    x.requires_grad_()
    linear(x, w, b).sum().backward()
    assert x.grad is not None
    with prefer("native"), pytest.raises(BackendUnavailable, match="no gradient"):
        linear(x, w, b)


def test_many_threads_of_python_may_call_at_once():
    from concurrent.futures import ThreadPoolExecutor

    x, w, b = operands(8, 256, 512)
    with prefer("native"), torch.no_grad():
        right = linear(x, w, b)

    def call(_):
        with torch.no_grad():
            return all(torch.equal(linear(x, w, b), right) for _ in range(50))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(call, range(4)))


@each_dtype
@pytest.mark.parametrize(
    ("m", "heads", "k", "n"), [(1, 10, 256, 256), (37, 3, 20, 12), (5, 1, 7, 9)]
)
def test_blocks_side_by_side_are_products_of_their_own(instruction_set, m, heads, k, n, dtype):
    torch.manual_seed(0)
    x = torch.randn(2, m, heads * k).to(dtype)
    w, b = (torch.randn(heads, k, n) / k**0.5).to(dtype), torch.randn(heads, n).to(dtype)
    with prefer("native"), torch.no_grad():
        y = block_linear(x, w, b)
        alone = block_linear(x[1:, m // 2 : m // 2 + 1], w, b)
    assert torch.equal(alone, y[1:, m // 2 : m // 2 + 1]), "the same bits in any batch"
    for h in range(heads):
        rows, out = slice(h * k, h * k + k), slice(h * n, h * n + n)
        exact = x[..., rows].double() @ w[h].double() + b[h].double()
        assert ((y[..., out].double() - exact).abs() <= exact.abs() * 2**-8 + 2e-5).all()


def test_a_block_weight_that_was_written_to_is_turned_anew():
    x, w, b = torch.randn(1, 8).bfloat16(), torch.randn(2, 4, 4).bfloat16(), torch.zeros(2, 4)
    with prefer("native"), torch.no_grad():
        first = block_linear(x, w, b.bfloat16())
        w.mul_(2)
        assert torch.equal(block_linear(x, w, b.bfloat16()), first * 2)


@pytest.mark.parametrize("options", [{"fused": True}, {"foreach": True}, {"foreach": False}])
def test_blocks_are_those_that_an_optimizer_has_written(options: dict[str, bool]) -> None:
    x, b = torch.randn(3, 8), torch.zeros(2, 4)
    w = torch.nn.Parameter(torch.randn(2, 4, 4))
    optimizer = torch.optim.AdamW([w], lr=0.5, **options)
    with torch.no_grad():
        before = block_linear(x, w, b)
    for _ in range(2):
        block_linear(x, w, b).square().sum().backward()
        optimizer.step()
        with torch.no_grad():
            after = block_linear(x, w, b)
            wanted = torch.einsum("nhi,hio->nho", x.unflatten(-1, (2, 4)), w).flatten(-2)
        torch.testing.assert_close(after, wanted, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(before, after, atol=1e-2)
