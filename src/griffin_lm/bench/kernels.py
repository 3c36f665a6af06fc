"""Products and attention of the compiled library beside what the machine can do.

    python -m griffin_lm.bench.kernels --threads 2 --rounds 5

Every round reads the memory's bandwidth and the matrix rate again and runs each case once; a case's
share is the median over rounds of its speed over the limit of its round. Weights are read from
copies that together are larger than the caches, as a model's are.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..ops import native
from ..ops.attention import windowed_attention
from ..ops.backend import prefer
from .cpu.limits import Contender

SHAPES = ((2560, 15360), (7680, 2560), (2560, 5120))  # K, N of RecurrentGemma-2B's products
KINDS = ("bf16", "fp32", "int8", "int4")
ROWS = (1, 8, 512)
COPIES = 1 << 26  # bytes of weights that a case goes round in


class Case(NamedTuple):
    """A name, what to run, the bytes it must read, the operations it must do."""

    name: str
    run: Callable[[], object]
    nbytes: int
    operations: int


def product(kind: str, k: int, n: int, rows: int) -> Case:
    """x (rows, K) times a matrix (N, K) of this kind, at random."""
    made = [_weights(kind, k, n)]
    nbytes = sum(tensor.nbytes for tensor in made[0])
    while len(made) * nbytes < COPIES and rows < 64:
        made.append(tuple(tensor.clone() for tensor in made[0]))
    x = torch.randn(rows, k, dtype=torch.float32 if kind == "fp32" else torch.bfloat16)
    turn = iter(range(1 << 62))

    def run() -> Tensor:
        weights = made[next(turn) % len(made)]
        if kind == "int4":
            return native.linear_int4(x, weights[0], weights[1], n, None)
        if kind == "int8":
            return native.linear_int8(x, weights[0], weights[1], weights[2], None)
        dense = native.linear_bf16 if kind == "bf16" else native.linear_fp32
        return dense(x, weights[0], None)

    return Case(f"{kind} {k}x{n}, {rows} rows", run, nbytes, 2 * rows * k * n)


def _weights(kind: str, k: int, n: int) -> tuple[Tensor, ...]:
    if kind == "int8":
        q = torch.randint(-127, 128, (n, k), dtype=torch.int8)
        return q, torch.rand(n), q.sum(1, dtype=torch.int32)
    if kind == "int4":
        nibbles = torch.randint(0, 256, (n // 16, k // 32, 4, 16, 4), dtype=torch.uint8)
        return nibbles, torch.rand(n // 16, k // 32, 16).bfloat16()
    dense = torch.randn(n, k)
    return (dense.bfloat16() if kind == "bf16" else dense,)


def attention(steps: int, batch: int = 1) -> Case:
    """Ten heads of 256 over one key head, a full window of 2048, in bf16."""
    heads, width, window = 10, 256, 2048
    k, v = (torch.randn(batch, steps, 1, width).bfloat16() for _ in range(2))
    ring_k, ring_v = (torch.randn(batch, window, 1, width).bfloat16() for _ in range(2))
    q = torch.randn(batch, steps, heads, width).bfloat16()
    read = torch.full((batch,), 3 * window)
    position = read[:, None] + torch.arange(steps)
    keys = window + 1

    def run() -> Tensor:
        with prefer("native"), torch.no_grad():
            return windowed_attention(q, k, v, ring_k, ring_v, read, position)

    return Case(
        f"attention, batch {batch}, {steps} queries",
        run,
        4 * batch * (window + steps) * width,
        4 * batch * steps * heads * keys * width,
    )


def _seconds(run: Callable[[], object], least: float = 0.02) -> float:
    """The fastest of the runs that fit into `least` seconds; one at least."""
    begin, best = time.perf_counter(), float("inf")
    while True:
        before = time.perf_counter()
        run()
        now = time.perf_counter()
        best = min(best, now - before)
        if now - begin > least:
            return best


def measure(cases: Sequence[Case], threads: int, rounds: int) -> list[tuple[str, ...]]:
    """A row of text for each case: time, GB/s, GFLOP/s, and the shares of both limits."""
    limits = Contender(threads, buffer=1 << 28)
    torch.set_num_threads(threads)
    times: dict[str, list[float]] = {case.name: [] for case in cases}
    shares: dict[str, list[tuple[float, float]]] = {case.name: [] for case in cases}
    found: list[tuple[float, float]] = []
    for _ in range(rounds):
        reading, (rate, _) = limits.read_bandwidth(), limits.matrix_rate()
        found.append((reading, rate))
        for case in cases:
            case.run()
            spent = _seconds(case.run)
            times[case.name].append(spent)
            shares[case.name].append(
                (case.nbytes / spent / reading, case.operations / spent / rate)
            )
    middle = [statistics.median(each) for each in zip(*found, strict=True)]
    lines = [("limit", "", f"{middle[0] / 1e9:.1f}", f"{middle[1] / 1e9:.0f}", "1", "1")]
    for case in cases:
        spent = statistics.median(times[case.name])
        of_memory, of_matrices = zip(*shares[case.name], strict=True)
        lines.append(
            (
                case.name,
                f"{spent * 1e3:.2f}",
                f"{case.nbytes / spent / 1e9:.1f}",
                f"{case.operations / spent / 1e9:.0f}",
                f"{statistics.median(of_memory):.2f}",
                f"{statistics.median(of_matrices):.2f}",
            )
        )
    return lines


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kinds", default=",".join(KINDS), help="of weights")
    parser.add_argument("--rows", default=",".join(map(str, ROWS)), help="of activations")
    parser.add_argument("--shapes", default=",".join(f"{k}x{n}" for k, n in SHAPES), help="KxN")
    parser.add_argument("--queries", default="1,512", help="of attention; empty: none")
    options = parser.parse_args()
    shapes = [tuple(map(int, shape.split("x"))) for shape in options.shapes.split(",") if shape]
    cases = [
        product(kind, k, n, rows)
        for kind in options.kinds.split(",")
        for k, n in shapes
        for rows in map(int, options.rows.split(","))
    ]
    cases += [attention(int(steps)) for steps in options.queries.split(",") if steps]
    print(f"{native.isa()}, {options.threads} threads, {options.rounds} rounds")
    print("| | ms | GB/s | GFLOP/s | of the read bandwidth | of the matrix rate |")
    print("|---|--:|--:|--:|--:|--:|")
    for line in measure(cases, options.threads, options.rounds):
        print(f"| {' | '.join(line)} |")


if __name__ == "__main__":
    main()
