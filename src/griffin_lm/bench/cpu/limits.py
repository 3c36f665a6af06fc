"""What the machine can do at best: reading memory, copying it, multiplying matrices.

The best of several ways to do each with PyTorch, at the same number of threads as the contenders.
Buffers are many times larger than any cache.
"""

import time
from collections.abc import Callable, Mapping

import torch

BUFFER = 1 << 29  # bytes
SIDE = 1536  # of the matrices; 7.2 GFLOP a product
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Contender:
    """The machine itself. buffer: bytes to read; side: of the matrices to multiply."""

    def __init__(self, threads: int, buffer: int = BUFFER, side: int = SIDE) -> None:
        torch.set_num_threads(threads)
        self._words = torch.ones(buffer // 4, dtype=torch.float32)
        self._copy: torch.Tensor | None = None
        self._matrices = {
            name: torch.ones(side, side, dtype=dtype) for name, dtype in DTYPES.items()
        }
        self._rates: dict[str, float] | None = None

    def read_bandwidth(self) -> float:
        """Bytes a second, read only: the best of three reductions."""
        floats, integers = self._words, self._words.view(torch.int32)
        columns = min(4096, len(floats))
        rows, vector = (
            floats[: len(floats) // columns * columns].view(-1, columns),
            floats[:columns],
        )
        reductions: tuple[Callable[[], object], ...] = (
            integers.amax,
            integers.view(torch.int64).sum,
            lambda: torch.mv(rows, vector),
        )
        return floats.nbytes / min(seconds(reduction) for reduction in reductions)

    def copy_bandwidth(self) -> float:
        """Bytes a second, read and written both counted."""
        if self._copy is None:
            self._copy = torch.empty_like(self._words).copy_(self._words)
        copy = self._copy
        return 2 * copy.nbytes / min(seconds(lambda: copy.copy_(self._words)) for _ in range(2))

    def matrix_rate(self) -> tuple[float, str]:
        """Floating-point operations a second and the dtype that gave them, the best there is."""
        if self._rates is None:  # the slower ones are not worth a round's time
            self._rates = {name: self._rate(name) for name in self._matrices}
        best = max(self._rates, key=lambda name: self._rates[name] if self._rates else 0)
        return max(self._rate(best) for _ in range(2)), best

    def rates(self) -> Mapping[str, float]:
        """Operations a second of every dtype, as read at the first `matrix_rate`."""
        return self._rates or {}

    def _rate(self, name: str) -> float:
        matrix = self._matrices[name]
        out = torch.empty_like(matrix)
        return 2 * len(matrix) ** 3 / seconds(lambda: torch.mm(matrix, matrix, out=out))


def seconds(work: Callable[[], object]) -> float:
    """How long a call takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
