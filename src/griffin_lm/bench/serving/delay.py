"""The server's own delay a token: from its being ready to its bytes being with the connection.

The server measures it (`griffin_token_delay_seconds`); here are the clients, all of them streaming
at once. They run beside it on the same machine, so they take some of its processor.
"""

import asyncio
from collections.abc import Mapping

from ...errors import GriffinError
from ...shapes import JSON
from .http import Answer, call, posted
from .process import Process, serving

TARGET = 0.003  # seconds, for 99 of 100 tokens
_NAME = "griffin_token_delay_seconds"


def measure(streams: int, tokens: int) -> list[JSON]:
    """A row: so many streams of so many tokens, after a few that are not counted."""
    with serving(("--max-sessions", str(streams), "--max-tokens", str(tokens))) as process:
        _stream(process, streams, min(tokens, 20))
        before = process.figures()
        _stream(process, streams, tokens)
        after = process.figures()
    counts = {edge: after[name] - before[name] for name, edge in _edges(after).items()}
    total = counts[float("inf")]
    summed = after[f"{_NAME}_sum"] - before[f"{_NAME}_sum"]
    return [
        {
            "what": "token delay",
            "who": "griffin",
            "streams": streams,
            "tokens": int(total),
            "mean_seconds": summed / total,
            "p50_at_most": at_most(counts, 0.50),
            "p99_at_most": at_most(counts, 0.99),
            "share_within_target": max(n for edge, n in counts.items() if edge <= TARGET) / total,
            "buckets": {str(edge): int(count) for edge, count in sorted(counts.items())},
        }
    ]


def at_most(counts: Mapping[float, float], share: float) -> float:
    """The least edge of a cumulative histogram with so much of it below. counts: by edge."""
    total = max(counts.values())
    return next(edge for edge, count in sorted(counts.items()) if count >= share * total)


def _edges(figures: Mapping[str, float]) -> dict[str, float]:
    """The edges of the histogram's buckets by their names in the figures."""
    head = f'{_NAME}_bucket{{le="'
    return {name: float(name[len(head) : -2]) for name in figures if name.startswith(head)}


def _stream(process: Process, streams: int, tokens: int) -> None:
    """All streams at once, to their ends. Raises GriffinError where one is not answered."""

    async def run() -> list[Answer]:
        bodies = (
            {
                "prompt": f"The wind rose over house {number}",
                "max_tokens": tokens,
                "temperature": 0.8,
                "seed": number,
                "stream": True,
            }
            for number in range(streams)
        )
        requests = (posted("/v1/completions", body) for body in bodies)
        return await asyncio.gather(*(call(process.port, request) for request in requests))

    if wrong := [answer for answer in asyncio.run(run()) if answer.status != 200]:
        raise GriffinError(f"a stream was answered with {wrong[0].status}: {wrong[0].body[:200]!r}")
