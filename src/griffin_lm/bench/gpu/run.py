"""`make gpu-check` from beginning to end: correctness, tables, one JSON file, one exit code.

Correctness first; where a check fails, the figures are measured all the same, and the exit code
says it. What the time no longer allows for is left out by name, not in silence.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from ..machine import machine
from . import kernel_checks, model_checks, quantized_checks
from .kernel_checks import Outcome

SECONDS = 510.0  # of the nine minutes that it may take: the last measurement may run over

Row = dict[str, Any]


class Clock:
    """How many seconds are left."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Negative once they have passed."""
        return self._end - time.monotonic()


def checked(outcomes: Iterable[Outcome]) -> Iterator[Row]:
    """A row for each, as it comes."""
    for outcome in outcomes:
        yield outcome._asdict() | {"passed": outcome.passed, "failure": ""}


def guarded(what: str, rows: Callable[[], Iterable[Row]], clock: Clock) -> Iterator[Row]:
    """The rows, or one that says why they end early: an error, or no time left."""
    if clock.left() < 0:
        yield {"what": what, "failure": "left out: the time was up"}
        return
    try:
        yield from rows()
    except Exception as problem:  # a table with a hole says more than a traceback
        yield {"what": what, "failure": f"{type(problem).__name__}: {str(problem)[:300]}"}


def correctness(size: str, device: str, clock: Clock) -> Iterator[Row]:
    """Kernels everywhere; models on a GPU only. Rows with `passed`."""
    parts: list[tuple[str, Callable[[], Iterable[Row]]]] = [
        ("kernels", lambda: checked(kernel_checks.kernel_checks(size, device))),
        ("few bits", lambda: checked(quantized_checks.quantized_checks(size, device))),
    ]
    if device == "cuda":
        for check in model_checks.checks():
            parts.append(("models", lambda check=check: checked([check()])))
    for what, rows in parts:
        for row in guarded(what, rows, clock):
            yield {"check": what, "passed": False} | row


def figures(clock: Clock) -> Iterator[Row]:
    """All tables, on a GPU."""
    from . import headline, recurrence, transformers_peer, whole_model
    from .limits import limits

    limit = limits()
    yield {"what": "copy bandwidth", "who": "torch", "bytes_per_s": limit.bytes_per_s}
    yield {"what": "matrix rate, bf16", "who": "torch", "flops": limit.flops}
    yield from guarded("rg_lru", lambda: recurrence.rg_lru_rows(limit), clock)
    yield from guarded("scan", recurrence.scan_rows, clock)
    try:
        model = whole_model.random_model()
    except torch.OutOfMemoryError as problem:
        yield {"what": "2B model", "failure": str(problem)[:200]}
        return
    left = clock.left
    yield from guarded("decode", lambda: whole_model.decode_rows(model, limit, left), clock)
    model.cache = "int8"
    few = (64, 512)
    yield from guarded(
        "decode, int8 cache", lambda: whole_model.decode_rows(model, limit, left, few), clock
    )
    model.cache = "auto"
    yield from guarded("prefill", lambda: [whole_model.prefill_row(model, limit)], clock)
    for kind in ("selective", "none"):
        yield from guarded(
            f"training step, recompute {kind}",
            lambda kind=kind: [whole_model.train_row(model, limit, kind)],
            clock,
        )
    yield from guarded("headline", lambda: headline.rows(model, whole_model.PRESET, left), clock)
    for kind in ("int8", "int4"):
        yield from guarded(
            f"decode, {kind}", lambda kind=kind: whole_model.rounded_rows(kind, limit, left), clock
        )
    del model
    torch.cuda.empty_cache()
    yield from guarded("transformers, eager", transformers_peer.rows, clock)
    yield from guarded("headline, Gemma", lambda: _gemma_rows(left), clock)


def _gemma_rows(left: Callable[[], float]) -> Iterator[Row]:
    from . import headline, whole_model

    gemma = whole_model.random_model("gemma-2b")
    yield from headline.rows(gemma, "gemma-2b", left)


def line(row: Row) -> str:
    """A row as text: what it is about, then its figures."""
    named = ("check", "subject", "what", "who")
    head = "  ".join(f"{row[name]!s:<24}" for name in named if row.get(name))
    tail = [f"{name} {_short(value)}" for name, value in row.items() if name not in named]
    return f"{head}  {'  '.join(part for part in tail if not part.endswith(' '))}"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def run(size: str = "full", device: str = "cuda", seconds: float = SECONDS) -> int:
    """Everything; 0 if all checks passed. Writes gpu-check.json and .txt to $OUT, or build/."""
    clock, checks, rows = Clock(seconds), list[Row](), list[Row]()
    about: Row = machine() | {"size": size}
    if device == "cuda":
        if not torch.cuda.is_available():
            reason = "torch sees no CUDA device here; nothing was checked"
            print(f"gpu-check: {reason}", file=sys.stderr)
            _write({"machine": about, "checks": [], "rows": [], "failure": reason}, [])
            return 1
        torch.backends.cuda.matmul.allow_tf32 = False
        about["GPU"] = torch.cuda.get_device_name()
    lines: list[str] = []

    def tell(text: str) -> None:
        lines.append(text)
        print(text, flush=True)

    tell("  ".join(f"{name}: {value}" for name, value in about.items()))
    for row in correctness(size, device, clock):
        checks.append(row)
        tell(line(row))
    if device == "cuda":
        for row in figures(clock):
            rows.append(row)
            tell(line(row))
    failed = sum(not row["passed"] for row in checks)
    tell(f"{len(checks) - failed} of {len(checks)} checks passed")
    _write({"machine": about, "checks": checks, "rows": rows}, lines)
    return min(failed, 1)


def _write(report: Row, lines: list[str]) -> None:
    out = Path(os.environ.get("OUT") or "build")
    out.mkdir(parents=True, exist_ok=True)
    (out / "gpu-check.json").write_text(json.dumps(report, indent=1, default=str))
    (out / "gpu-check.txt").write_text("\n".join(lines) + "\n")
