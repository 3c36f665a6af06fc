"""How near a kernel must be to float64: no farther than PyTorch's own operations in fp32, about."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from griffin_lm.ops.backend import prefer

SHARE = 1.5  # of the error of the same computation by PyTorch's operations in fp32
ROUNDING = 2.0**-21  # of the largest number: four roundings, where that error is nothing by luck


def assert_as_near(mine: Tensor, eager: Tensor, exact: Tensor, what: str = "") -> None:
    """Largest and root-mean-square distance to `exact`, each against that of `eager`.

    A result in bf16 may be off by one rounding to bf16 of the exact one, 1e-6 besides.
    """
    assert mine.shape == exact.shape, what
    assert mine.isfinite().all(), f"{what}: not finite"
    off = (mine.double() - exact).abs()
    if mine.dtype in (torch.bfloat16, torch.float16):
        spacing = 2.0**-7 if mine.dtype == torch.bfloat16 else 2.0**-10
        worst = (off - exact.abs() * spacing).max()
        assert worst <= 1e-6, f"{what}: {float(worst):.1e} over one rounding"
        return
    theirs = (eager.double() - exact).abs()
    scale = float(exact.abs().max())
    for name, one, other in (
        ("largest", off.max(), theirs.max()),
        ("rms", off.square().mean().sqrt(), theirs.square().mean().sqrt()),
    ):
        allowed = SHARE * float(other) + ROUNDING * scale
        assert float(one) <= allowed, f"{what}: {name} error {float(one):.1e} > {allowed:.1e}"


def outcome(
    function: Callable[..., Tensor],
    given: Sequence[Tensor],
    kernels: str,
    dtype: torch.dtype | None = None,
) -> list[Tensor]:
    """The value, and the gradients at all of `given` for the same random slope."""
    leaves = [(t if dtype is None else t.to(dtype)).detach().clone() for t in given]
    for leaf in leaves:
        leaf.requires_grad_()
    with prefer(kernels):
        y = function(*leaves)
        torch.manual_seed(0)
        slope = torch.randn(y.shape).bfloat16().to(y.dtype)  # the same numbers in every dtype
        grads = torch.autograd.grad(y, leaves, slope, materialize_grads=True)
    return [y.detach(), *grads]


def assert_kernel(
    function: Callable[..., Tensor], given: Sequence[Tensor], names: Sequence[str]
) -> list[Tensor]:
    """Value and gradients by Triton, held against float64; returns them."""
    mine = outcome(function, given, "triton")
    eager = outcome(function, given, "reference", torch.float32)
    exact = outcome(function, given, "reference", torch.float64)
    for a, b, c, name in zip(mine, eager, exact, ("value", *names), strict=True):
        assert_as_near(a, b, c, name)
    return mine
