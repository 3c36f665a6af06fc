"""What this card does at best: copying memory, multiplying matrices; and how time is taken."""

import statistics
from collections.abc import Callable
from typing import NamedTuple

import torch


class Limits(NamedTuple):
    """bytes_per_s: read plus written, of a large copy; flops: of a large bf16 product."""

    bytes_per_s: float
    flops: float


def seconds(run: Callable[[], object], least: float = 0.15, most: int = 50) -> float:
    """The median of single runs, by the device's own clock, after two that are not counted."""
    for _ in range(2):
        run()
    times: list[float] = []
    while sum(times) < least and len(times) < most:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) / 1e3)
    return statistics.median(times)


def limits() -> Limits:
    """Measured on random numbers: products of zeros are faster than those of anything else."""
    source = torch.randint(0, 255, (2**31,), dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    copied = 2 * source.numel() / seconds(lambda: target.copy_(source))
    del source, target
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    out = torch.empty_like(a)
    return Limits(copied, 2 * 8192**3 / seconds(lambda: torch.mm(a, b, out=out)))
