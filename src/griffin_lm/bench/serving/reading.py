"""A text of a million tokens, read by a server into a session: its memory from start to end."""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from statistics import median

from ...errors import GriffinError
from ...inference import load
from ...inference.resolution import BUNDLED
from ...shapes import JSON
from .http import call, connection, message, posted
from .process import Process, serving

SAMPLES = 400  # looks at the server's memory
WARM = 2  # times that another session reads the book before: pools and threads come to their sizes

Progress = Callable[[int, int], None]


def measure(tokens: int, progress: Progress) -> list[JSON]:
    """A row, with samples as (tokens read, bytes): the bundled book, over and over."""
    lm = load("fledgling", device="cpu")
    book = (BUNDLED["fledgling"] / "book.txt").read_text(encoding="utf-8")
    once = len(lm.encode(book, bos=False))
    text = (book * -(-tokens // once)).encode()
    with serving() as process:
        asyncio.run(_read(process, "warm", (book * WARM).encode(), tokens, lambda *_: None))
        began = time.perf_counter()
        samples, session = asyncio.run(_read(process, "book", text, tokens, progress))
        seconds = time.perf_counter() - began
    low, middle, high = spread([memory for _, memory in samples])
    return [
        {
            "what": "reading",
            "who": "griffin",
            "tokens": session["tokens"],
            "seconds": seconds,
            "tokens_per_s": session["tokens"] / seconds,
            "state_bytes": session["bytes"],
            "growing_cache_bytes": session["growing_cache_bytes"],
            "memory_bytes": middle,
            "memory_low": low / middle - 1,
            "memory_high": high / middle - 1,
            "samples": samples,
        }
    ]


def spread(memory: Sequence[int]) -> tuple[int, int, int]:
    """Least, median and most. Raises GriffinError where there is nothing to tell it from."""
    if len(memory) < 2:
        raise GriffinError("the reading was over before its memory could be looked at; read more")
    return min(memory), round(median(memory)), max(memory)


def private(process: Process) -> int:
    """Bytes of the server's own: anonymous and shared memory, no files that it maps."""
    with open(f"/proc/{process.run.pid}/status", encoding="ascii") as status:
        rows = dict(row.split(":", 1) for row in status)
    return sum(int(rows[name].split()[0]) * 1024 for name in ("RssAnon", "RssShmem"))


async def _read(
    process: Process, name: str, text: bytes, tokens: int, progress: Progress
) -> tuple[list[tuple[int, int]], JSON]:
    """Samples while it reads, and the session at the end."""
    samples: list[tuple[int, int]] = []
    latest: JSON = {}
    path = f"/v1/sessions/{name}/append?raw=true&stream=true"
    await call(process.port, posted("/v1/sessions", {"id": name}))
    async with connection(process.port) as (reader, writer):
        writer.write(message("POST", path, text, "text/plain"))
        await writer.drain()
        async for line in reader:
            if not line.startswith(b"data: {"):
                continue
            latest = json.loads(line[len(b"data: ") :])
            if "error" in latest:
                raise GriffinError(f"the reading failed: {latest['error']}")
            if latest["tokens"] >= len(samples) * tokens / SAMPLES:
                samples.append((latest["tokens"], private(process)))
                progress(min(latest["tokens"], tokens), tokens)
    if latest.get("object") != "session":
        raise GriffinError(f"the reading ended with {latest}")
    return samples, latest
