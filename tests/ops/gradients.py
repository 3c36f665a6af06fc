"""A function's value and gradients by its kernel in fp32, held against the reference in float64."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from griffin_lm.ops.backend import prefer


def outcome(
    function: Callable[..., Tensor], operands: Sequence[Tensor], dtype: torch.dtype, kernels: str
) -> list[Tensor]:
    """The value, and the gradients at all operands for the same random slope."""
    leaves = [operand.to(dtype, copy=True).requires_grad_() for operand in operands]
    with prefer(kernels):
        y = function(*leaves)
    torch.manual_seed(0)
    slope = torch.randn(y.shape, dtype=torch.float64).to(dtype)
    return [y.detach(), *torch.autograd.grad(y, leaves, slope)]


def assert_kernel_is_the_reference(
    function: Callable[..., Tensor], operands: Sequence[Tensor], bound: float = 1e-5
) -> None:
    """Value and gradients, relative to the largest number of each."""
    exact = outcome(function, operands, torch.float64, "reference")
    mine = outcome(function, operands, torch.float32, "native")
    for a, b in zip(mine, exact, strict=True):
        assert (a.double() - b).abs().max() <= bound * b.abs().max().clamp(min=1)
