"""Every Triton kernel against float64, on whatever runs it: a GPU, or the interpreter on a CPU.

    value, gradients   no farther from float64 than 1.5 times PyTorch's own operations in fp32
    bf16               within one rounding of the exact result on the same rounded operands
    again, alone       the same bits in a second run, and for a row of a batch by itself

New memory is filled with NaN meanwhile, so what a kernel forgets to write is seen.
"""

import warnings
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...ops.backend import prefer
from .operations import OPERATIONS, Operation, Shape

SHARE = 1.5  # of the error of the same computation by PyTorch's operations in fp32
ROUNDING = 2.0**-21  # of the largest number: four roundings, where that error is nothing by luck
SHAPES: dict[str, tuple[Shape, ...]] = {
    "tiny": ((2, 3, 5), (1, 17, 4)),
    "full": ((1, 1, 1), (2, 3, 5), (7, 63, 100), (3, 129, 256), (2, 1000, 40), (1, 4097, 64)),
}


class Outcome(NamedTuple):
    """What was compared, how far off it was at most, and how far it may be."""

    check: str
    subject: str
    error: float
    allowed: float

    @property
    def passed(self) -> bool:
        """Whether it is near enough; NaN is not."""
        return self.error <= self.allowed


@contextmanager
def poisoned() -> Generator[None]:
    """Within, torch.empty gives NaN."""
    deterministic: Any = torch.utils.deterministic  # its types leave the property out
    before = torch.are_deterministic_algorithms_enabled()
    filled = deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    deterministic.fill_uninitialized_memory = True
    try:
        with warnings.catch_warnings():
            # PyTorch's own sums may have no such version; ours are compared bit by bit here
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.use_deterministic_algorithms(before)
        deterministic.fill_uninitialized_memory = filled


def results(
    operation: Operation, operands: Sequence[Tensor], kernels: str, dtype: torch.dtype
) -> list[Tensor]:
    """The value and all gradients, for a fixed slope."""
    given = [t.to(dtype) if t.is_floating_point() else t for t in operands]
    leaves = [t.clone().requires_grad_() for t in given[: operation.differentiable]]
    with prefer(kernels), torch.set_grad_enabled(bool(leaves)):
        y = operation.run(*leaves, *given[operation.differentiable :])
        if not leaves:
            return [y]
        random = torch.Generator().manual_seed(0)
        slope = torch.randn(y.shape, generator=random).bfloat16().to(y)
        return [y.detach(), *torch.autograd.grad(y, leaves, slope)]


def _distances(mine: Sequence[Tensor], exact: Sequence[Tensor]) -> list[tuple[float, float]]:
    """Largest distance of each tensor, and its largest number."""
    pairs = zip(mine, exact, strict=True)
    return [
        (float((a.double() - b).abs().max()), float(b.abs().max())) if b.numel() else (0.0, 0.0)
        for a, b in pairs
    ]


def near_float64(operation: Operation, shape: Shape, device: str) -> Outcome:
    """The worst of value and gradients, as a multiple of what it may be."""
    operands = [t.to(device) for t in operation.operands(shape)]
    exact = results(operation, operands, "reference", torch.float64)
    mine = _distances(results(operation, operands, "triton", torch.float32), exact)
    eager = _distances(results(operation, operands, "reference", torch.float32), exact)
    worst = 0.0
    for (off, scale), (usual, _) in zip(mine, eager, strict=True):
        allowed = SHARE * usual + ROUNDING * scale
        worst = max(worst, off / allowed if allowed else off) if off == off else float("nan")
    return Outcome("value and gradients, of allowed", f"{operation.name} {shape}", worst, 1.0)


def near_in_bf16(operation: Operation, shape: Shape, device: str) -> Outcome:
    """The value, in roundings to bf16."""
    operands = [t.to(device) for t in operation.operands(shape)]
    rounded = [t.bfloat16() if t.is_floating_point() else t for t in operands]
    exact = results(operation, rounded, "reference", torch.float64)[0]
    mine = results(operation, rounded, "triton", torch.bfloat16)[0].double()
    spacing = exact.abs() * 2.0**-7 + 1e-6
    share = float(((mine - exact).abs() / spacing).max())
    return Outcome("bf16, in roundings", f"{operation.name} {shape}", share, 1.0)


def same_bits(operation: Operation, shape: Shape, device: str) -> Outcome:
    """Numbers that differ in a second run, or for the last row alone."""
    operands = [t.to(device) for t in operation.operands(shape)]
    first = results(operation, operands, "triton", torch.float32)
    again = results(operation, operands, "triton", torch.float32)
    differ = sum(int((a != b).sum()) for a, b in zip(first, again, strict=True))
    if operation.batched:
        last = slice(shape[0] - 1, shape[0])
        alone = [t[last] if n in operation.batched else t for n, t in enumerate(operands)]
        with prefer("triton"), torch.no_grad():
            differ += int((operation.run(*alone) != first[0][last]).sum())
    return Outcome("bits, again and alone", f"{operation.name} {shape}", float(differ), 0.0)


def kernel_checks(size: str, device: str) -> Iterator[Outcome]:
    """All of them; `size` is a key of SHAPES."""
    torch.manual_seed(0)
    with poisoned():
        for operation in OPERATIONS:
            for shape in SHAPES[size]:
                yield near_float64(operation, shape, device)
            shape = SHAPES[size][0] if size == "tiny" else SHAPES[size][2]
            if operation.narrow:
                yield near_in_bf16(operation, shape, device)
            yield same_bits(operation, shape, device)
