"""What a long text costs: memory over the weights while it is read, time a token far into it."""

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ...inference.reading import CHUNK
from ...shapes import JSON
from ..machine import machine
from .child import Child
from .ours import shape

LIMIT = 300e6  # bytes over the weights that reading may take
# rounds of a process: where two states happen to lie in memory tells on their times, by up to 4 %
TOGETHER = 3
Said = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Memory:
    """model: bundled, or a preset whose shape random weights have. chunk: tokens a model call."""

    model: str
    weights: str
    tokens: int
    threads: int = 0
    layers: int = 0
    chunk: int = CHUNK


@dataclass(frozen=True, kw_only=True)
class Counter:
    """Decoding at `near` and at `far` tokens read, in turns, `rounds` times `tokens` steps each."""

    model: str
    weights: str
    near: int = 4096
    far: int = 1_000_000
    tokens: int = 16
    rounds: int = 9
    threads: int = 0
    layers: int = 0


def memory(options: Memory, said: Said) -> JSON:
    """A row: bytes of anonymous memory at most, over those of the weights."""
    threads = options.threads or torch.get_num_threads()
    named = {"threads": threads, "model": options.model, "weights": options.weights}
    with Child("griffin_lm.bench.cpu.reading", named | {"layers": options.layers}) as child:
        said(f"reading {options.tokens} tokens with {options.model}, {options.weights}")
        row = child.ask("read", options.tokens, options.chunk)
    over = row["peak"] - row["weights_bytes"]
    row |= {"over_weights": over, "while_reading": row["peak"] - row["loaded"]}
    return {"what": "memory", "who": "griffin", **named, "chunk": options.chunk, **row} | {
        "target_bytes": int(LIMIT),
        "reached": over <= LIMIT,
        "tokens_per_s": row["tokens"] / row["seconds"],
    }


def counter(options: Counter, said: Said) -> JSON:
    """A row: medians of seconds a token near and far, and of their ratio within a round."""
    threads = options.threads or torch.get_num_threads()
    config = shape(options.model, options.layers)
    made = {"threads": threads, "weights": options.weights, "config": config}
    near: list[float] = []
    far: list[float] = []
    for begin in range(0, options.rounds, TOGETHER):
        with Child("griffin_lm.bench.cpu.ours", made) as child:
            for number in range(begin, min(begin + TOGETHER, options.rounds)):
                pairs = ((options.near, near), (options.far, far))
                for context, times in pairs if number % 2 else reversed(pairs):
                    took = child.ask("decode", 1, context, options.tokens)
                    times.append(took / options.tokens)
                said(
                    f"round {number + 1}: {near[-1] * 1e3:.2f} ms and {far[-1] * 1e3:.2f} ms "
                    "a token"
                )
    ratios = [b / a for a, b in zip(near, far, strict=True)]
    return {
        "what": "counter",
        "who": "griffin",
        "model": options.model,
        "weights": options.weights,
        "threads": threads,
        "near": options.near,
        "far": options.far,
        "rounds": options.rounds,
        "seconds_near": statistics.median(near),
        "seconds_far": statistics.median(far),
        "ratio": statistics.median(ratios),
        "target": 1.02,
    }


def figures(rows: list[JSON], command: str, earlier: Mapping[str, Any] | None) -> JSON:
    """For --json; rows of the same model, weights and threads replace those that are there."""
    keys = ("what", "model", "weights", "threads", "tokens")
    mine = [[row.get(key) for key in keys] for row in rows]
    kept = [r for r in (earlier or {}).get("rows", []) if [r.get(k) for k in keys] not in mine]
    commands = [*(earlier or {}).get("commands", []), command]
    return {"machine": machine(), "commands": list(dict.fromkeys(commands)), "rows": kept + rows}
