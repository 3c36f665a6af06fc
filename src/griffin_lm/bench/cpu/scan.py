"""Scans: h = a h + b and the RG-LRU, forward and backward, as shares of copying their arrays.

The allocator keeps what was freed, as in our training runs: copying, the limit, writes into memory
that is there already, and so does a scan then.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...allocator import keep_freed_memory
from ...ops.backend import prefer
from ...ops.linear_scan import definition, linear_scan
from ...ops.rg_lru import rg_lru
from . import rounds
from .child import Child
from .contenders import Measured, usable_cores
from .limits import seconds
from .rounds import Case, Say

# arrays that must be read or written at least
ARRAYS = {"forward": 3, "backward": 5}  # x, a, h; g, a, h, dx, da
GATED_ARRAYS = {"forward": 4, "backward": 8}  # x, r, i, h; g, x, r, i, h, dx, dr, di


@dataclass(frozen=True)
class Scan:
    """steps and width of the arrays; rounds; threads (0: all cores); patience as of Options."""

    steps: int = 2048
    width: int = 2560
    rounds: int = 9
    threads: int = 0
    patience: float = 10.0


class Contender:
    """All implementations, in one process."""

    def __init__(self, threads: int, steps: int, width: int) -> None:
        torch.set_num_threads(threads)
        keep_freed_memory()
        random = torch.Generator().manual_seed(0)
        shape = (1, steps, width)
        self._x = torch.randn(shape, generator=random)
        self._a = torch.rand(shape, generator=random) * 0.2 + 0.8
        self._g = torch.randn(shape, generator=random)
        self._h0 = torch.zeros(1, width)
        self._r, self._i = (torch.randn(shape, generator=random) for _ in range(2))
        self._starts = torch.zeros(1, steps, dtype=torch.bool)
        self._Lambda = torch.zeros(width)

    def time(self, who: str, what: str, direction: str) -> float:
        """Seconds of one call, its graph of gradients not counted in a backward."""
        inputs = [self._x, self._a] if what == "scan" else [self._x, self._r, self._i]
        if direction == "forward":
            with torch.no_grad():
                return seconds(partial(self._run, who, what, inputs))
        leaves = [tensor.clone().requires_grad_() for tensor in inputs]
        out = self._run(who, what, leaves)
        return seconds(lambda: torch.autograd.grad(out, leaves, self._g))

    def _run(self, who: str, what: str, inputs: list[Tensor]) -> Tensor:
        if who == "python loop":
            return definition.scan(inputs[0], inputs[1], self._h0)
        with prefer("auto" if who == "griffin" else "reference"):
            if what == "scan":
                return linear_scan(inputs[0], inputs[1], self._h0)
            return rg_lru(inputs[0], inputs[1], inputs[2], self._Lambda, self._starts, self._h0)


def measure(scan: Scan, say: Say) -> Measured:
    """Raw measurements; the limit is the bandwidth of copying, over the arrays of each scan."""
    threads = scan.threads or usable_cores()
    options = {"threads": threads, "steps": scan.steps, "width": scan.width}
    array = 4 * scan.steps * scan.width
    buffer: dict[str, Any] = {"buffer": 1 << 24} if array < 1 << 22 else {}
    module = "griffin_lm.bench.cpu.{}"
    with (
        Child(module.format("limits"), {"threads": threads} | buffer) as machine,
        Child(module.format("scan"), options) as child,
    ):

        def case(who: str, what: str, direction: str, arrays: int) -> Case:
            facts = {"what": f"{what} {direction}", "who": who, "weights": "fp32", "batch": 1}
            place = {"context": scan.steps, "width": scan.width, "arrays": arrays}
            run: Callable[[], float] = partial(child.ask, "time", who, what, direction)
            return Case(facts | place, run, scan.steps, float(arrays * array))

        cases = [
            case(who, "scan", direction, arrays)
            for direction, arrays in ARRAYS.items()
            for who in ("griffin", "two-level reference", "python loop")
            # backward through a loop of indexed steps is quadratic in T: many seconds a call
            if (who, direction) != ("python loop", "backward")
        ] + [
            case(who, "rg_lru", direction, arrays)
            for direction, arrays in GATED_ARRAYS.items()
            for who in ("griffin", "two-level reference")
        ]
        for one in cases:
            one.run()

        def limit() -> tuple[float, str]:
            return machine.ask("copy_bandwidth"), "copy bandwidth"

        return Measured(rounds.measure(cases, limit, scan.rounds, say, scan.patience), [], threads)
