"""Interleaved rounds: every contestant and the matrix rate in each, medians in the end."""

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch

from ...training.speed import matrix_rate
from .cases import Case
from .contestants import Contestant

CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
_CPU = torch.device("cpu")


def faster_dtype() -> str:
    """ "fp32" or "bf16", whichever multiplies faster here: where bf16 is emulated, by far fp32."""
    rates = {kind: matrix_rate(_CPU, kind == "bf16", 0.02, 512) for kind in ("fp32", "bf16")}
    return max(rates, key=lambda kind: rates[kind])


def measure_case(
    case: Case,
    taking_part: list[Contestant],
    rounds: int,
    say: Callable[[str], None],
    rate_seconds: float,
    clock: str = "wall",
    seconds: float = 0.0,
) -> list[dict[str, Any]]:
    """A row for each contestant and length; two untimed steps of each contestant first.

    In the first two steps memory is asked of the system: gradients and moments, then activations
    beside them.

    clock: "wall", or "processor": seconds of this process's processors, where the machine is shared
    with other work; that means something with one thread only. seconds > 0: no round but the first
    begins after so many.

    Who begins a round changes from round to round. A round's fraction is 6 * parameters * tokens/s
    over the better of the matrix rates measured before and after its steps.
    """
    runs = [(one, length, rows) for one in taking_part for length, rows in case.spans()]
    started = time.perf_counter()
    for one in taking_part:
        length, rows = case.spans()[0]
        begun = time.perf_counter()
        one.step(length, rows)
        one.step(length, rows)
        took = time.perf_counter() - begun
        say(f"{case.name}: {one.who} {one.weights}, first two steps {took:.1f} s")
    kind, now = faster_dtype(), CLOCKS[clock]
    size = 0 if rate_seconds >= 0.1 else 128
    speeds: list[list[float]] = [[] for _ in runs]
    limits: list[float] = []
    for turn in range(rounds):
        if turn and 0 < seconds < time.perf_counter() - started:
            break
        before = matrix_rate(_CPU, kind == "bf16", rate_seconds, size, now)
        for place in range(len(runs)):
            at = (place + turn) % len(runs)
            one, length, rows = runs[at]
            begun = now()
            one.step(length, rows)
            speeds[at].append(length * rows / (now() - begun))
        limits.append(max(before, matrix_rate(_CPU, kind == "bf16", rate_seconds, size, now)))
        found = ", ".join(f"{speed[-1]:.0f}" for speed in speeds)
        say(f"{case.name}: round {turn + 1}: {found} tokens/s; {limits[-1] / 1e9:.0f} GFLOP/s")
    return [
        _row(case, *run, speed, limits, kind) | {"clock": clock}
        for run, speed in zip(runs, speeds, strict=True)
    ]


def _row(
    case: Case,
    one: Contestant,
    length: int,
    rows: int,
    speeds: list[float],
    limits: list[float],
    kind: str,
) -> dict[str, Any]:
    work = 6 * one.parameters
    fractions = [work * speed / limit for speed, limit in zip(speeds, limits, strict=True)]
    return {
        "what": f"train {case.name}",
        "case": case.name,
        "about": case.about,
        "who": one.who,
        "weights": one.weights,
        "batch": rows,
        "context": length,
        "parameters_in_products": one.parameters,
        "tokens_per_s": round(median(speeds), 1),
        "slowest": round(min(speeds), 1),
        "fastest": round(max(speeds), 1),
        "matrix_gflops": round(median(limits) / 1e9, 1),
        "matrix_dtype": kind,
        "fraction_of_limit": round(median(fractions), 4),
        "rounds": len(speeds),
    }
