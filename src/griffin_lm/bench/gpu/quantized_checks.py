"""Products with weights of 8 and 4 bits by Triton, against their definition in float64.

Apart from the other checks, since what is exact here is a definition of its own: activations are
rounded to int8, so PyTorch's product in float64 is not what the kernel is to be near.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from ...ops.backend import prefer
from ...ops.quantized_linear import (
    definition,
    linear_int4,
    linear_int8,
    quantize_int4,
    quantize_int8,
)
from .kernel_checks import Outcome, poisoned

ALLOWED = 2e-6  # of the largest number: sums are exact, scales and bias are rounded to fp32
# rows, inputs, outputs; at full size also the 2B's own, as many rows as the kernel is there for
SIZES: dict[str, tuple[tuple[int, int, int], ...]] = {
    "tiny": ((1, 1, 1), (3, 33, 17)),
    "full": ((1, 1, 1), (3, 33, 17), (16, 300, 40), (1, 2560, 7680), (16, 7680, 2560)),
}
Product = Callable[[Tensor], Tensor]


def products(kind: str, weight: Tensor, bias: Tensor) -> tuple[Product, Product]:
    """x (M, K) to (M, N) by the kernel, and by the definition; weight (N, K) fp32, rounded here."""
    count = weight.shape[0]
    if kind == "int8":
        eight: Any = _moved(quantize_int8(weight.cpu()), weight.device)
        return (
            lambda x: linear_int8(x, eight, bias.to(x.dtype)),
            lambda x: definition.linear_int8(x, eight, bias.to(x.dtype)),
        )
    four: Any = _moved(quantize_int4(weight.cpu()), weight.device)
    return (
        lambda x: linear_int4(x, four, count, bias.to(x.dtype)),
        lambda x: definition.linear_int4(x, four, count, bias.to(x.dtype)),
    )


def _moved(packed: Any, device: torch.device) -> Any:
    return type(packed)(*(tensor.to(device) for tensor in packed))


@torch.no_grad()
def quantized_checks(size: str, device: str) -> Iterator[Outcome]:
    """Values in fp32, one rounding in bf16, and bits: a second run, and each row alone."""
    with poisoned():
        for kind in ("int8", "int4"):
            for sizes in SIZES[size]:
                yield from _checks(kind, *sizes, device=device)


def _checks(kind: str, rows: int, inputs: int, outputs: int, device: str) -> Iterator[Outcome]:
    subject = f"{kind} weights {(rows, inputs, outputs)}"
    x, weight, bias = (
        torch.randn(shape).to(device) for shape in ((rows, inputs), (outputs, inputs), (outputs,))
    )
    kernel, exact = products(kind, weight, bias)
    with prefer("triton"):
        mine, narrow = kernel(x), kernel(x.bfloat16())
        again = torch.cat([kernel(x), *(kernel(row[None]) for row in x)])
    wanted = exact(x)
    scale = float(wanted.abs().max().clamp(min=1))
    off = float((mine.double() - wanted).abs().max())
    yield Outcome("value, of allowed", subject, off / (ALLOWED * scale), 1.0)
    wanted = exact(x.bfloat16())
    spacing = wanted.abs() * 2.0**-7 + 1e-6
    share = float(((narrow.double() - wanted).abs() / spacing).max())
    yield Outcome("bf16, in roundings", subject, share, 1.0)
    differ = int((again != torch.cat([mine, mine])).sum())
    yield Outcome("bits, again and alone", subject, float(differ), 0.0)
