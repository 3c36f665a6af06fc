"""Timing of steps and prompts, for the study of length: one architecture at a time."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import psutil
import torch
from torch import Tensor

from ..models import Griffin, State
from ..shapes import JSON
from .filled import state_after, state_bytes
from .study import Place

GIB = 1 << 30
_READ = 1 << 25  # numbers: 128 MiB, more than any cache


def decode(model: Griffin, cell: JSON, place: Place) -> JSON:
    """Milliseconds of a step of one row, and the bytes of its state."""
    size = state_bytes(model, cell["tokens"])
    if short := _short_of(size, place.device):
        return {"state_bytes": size, "ended": short}
    state = state_after(model, 1, cell["tokens"], cell["steps"] + 1)
    times = step_times(model, state, cell["steps"], place.device)
    rate = _bandwidth(place.device)
    least = (sum(parameter.nbytes for parameter in model.parameters()) + size) / rate
    return {
        "state_bytes": size,
        **_spread([1000 * t for t in times]),
        "bytes_per_s": round(rate),
        "least_ms": round(1000 * least, 3),
    }


def sample(model: Griffin, cell: JSON, place: Place) -> JSON:
    """Tokens a second of the largest batch that fits, over `tokens` sampled after a prompt.

    The time is Simpson's rule over steps timed at the beginning, the middle and the end: exact
    where a step's cost is a straight line in what was read.
    """
    end = cell["prompt"] + cell["tokens"]
    weights = sum(parameter.nbytes for parameter in model.parameters())
    room = min(int(cell["budget"] * GIB), _free(place.device)) - weights
    rows = min(cell["most_rows"], room // state_bytes(model, end))
    if rows < 1:
        return {"ended": f"no row fits {room / GIB:.1f} GiB beside the weights"}
    steps: list[float] = []
    for at in (cell["prompt"], (cell["prompt"] + end) // 2, end):
        state = state_after(model, rows, at, cell["steps"] + 1)
        steps.append(statistics.median(step_times(model, state, cell["steps"], place.device)))
        del state
        release(place.device)
    seconds = cell["tokens"] * (steps[0] + 4 * steps[1] + steps[2]) / 6
    return {
        "rows": rows,
        "limited_by": "budget" if rows < cell["most_rows"] else "most_rows",
        "ms_per_step": [round(1000 * step, 3) for step in steps],
        "tokens_per_s": round(rows * cell["tokens"] / seconds, 2),
    }


def prefill(model: Griffin, cell: JSON, place: Place) -> JSON:
    """Seconds to read a random prompt in chunks, up to its last logits; the better of two."""
    tokens = torch.randint(model.config.vocab, (1, cell["tokens"]), device=place.device)
    best = float("inf")
    for _ in range(2):
        began, state = _now(place.device), model.empty_state(1)
        for begin in range(0, cell["tokens"], cell["chunk"]):
            part = tokens[:, begin : begin + cell["chunk"]]
            _, state = model(part, state=state, logits="last", donate=True)
        best = min(best, _now(place.device) - began)
    return {"seconds": round(best, 4), "tokens_per_s": round(cell["tokens"] / best, 1)}


def step_times(model: Griffin, state: State, count: int, device: torch.device) -> list[float]:
    """Seconds of each of `count` greedy steps after one that is not timed."""
    tokens: Tensor = torch.zeros(state.batch_size, 1, dtype=torch.int64, device=device)
    times: list[float] = []
    for _ in range(count + 1):
        began = _now(device)
        logits, state = model(tokens, state=state, logits="last", donate=True)
        assert logits is not None
        tokens = logits.argmax(-1, keepdim=True)
        times.append(_now(device) - began)
    return times[1:]


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def _bandwidth(device: torch.device) -> float:
    """Bytes a second that one pass over a large array reads here, the best of three."""
    array = torch.ones(_READ, device=device)
    best = float("inf")
    for _ in range(3):
        began = _now(device)
        array.sum()
        best = min(best, _now(device) - began)
    return array.nbytes / best


def _free(device: torch.device) -> int:
    """Bytes that may be taken: nine tenths of what is free."""
    if device.type == "cuda":
        return int(0.9 * torch.cuda.mem_get_info()[0])
    return int(0.9 * psutil.virtual_memory().available)


def _short_of(size: int, device: torch.device) -> str | None:
    free = _free(device)
    if size <= free:
        return None
    return f"the state takes {size / GIB:.1f} GiB, and {free / GIB:.1f} GiB are free"


def release(device: torch.device) -> None:
    """Gives back what PyTorch keeps of a card's memory."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _spread(times: Sequence[float]) -> JSON:
    return {
        "ms": round(statistics.median(times), 3),
        "ms_low": round(min(times), 3),
        "ms_high": round(max(times), 3),
    }


MEASURES: Mapping[str, Callable[[Griffin, JSON, Place], JSON]] = {
    "decode": decode,
    "sample": sample,
    "prefill": prefill,
}
