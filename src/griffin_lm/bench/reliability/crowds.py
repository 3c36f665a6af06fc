"""A server among a crowd of clients, and with very many streams at once: what is left after it."""

import asyncio
import tempfile
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

from ...errors import GriffinError
from ..serving.http import call, posted
from ..serving.process import Process, serving
from . import alone
from .clients import COMPLETIONS, LONG, LONGEST, PIECES, SHORT, Crowd, Seen, streamed_text

SLOTS, QUEUE = 8, 32
GROWTH, NOISE = 0.05, 16 << 20  # of memory, between two halves, that an allocator makes by itself
SPARE = 8  # connections that the server may not have seen the end of yet

Progress = Callable[[int, int], None]


@dataclass
class Served:
    """What came of it. memory: bytes at the start, medians of two halves, at most."""

    what: str
    clients: int
    seconds: float
    slots: int
    compared: int = 0
    refused: int = 0
    done: dict[str, int] = field(default_factory=dict[str, int])
    memory: dict[str, int] = field(default_factory=dict[str, int])
    most_at_once: int = 0
    failures: list[str] = field(default_factory=list[str])

    def take(self, seen: Seen) -> None:
        """Counts in what clients have met."""
        self.compared += seen.compared
        self.refused += seen.refused
        self.failures += seen.failures
        self.done.update(seen.done)


def crowd(clients: int, seconds: float, seed: int, progress: Progress) -> Served:
    """So many clients for so long, of a server of few slots; then it must be as it was."""
    found = Served("crowd", clients, seconds, SLOTS)
    _answers_alone()
    with tempfile.TemporaryDirectory(prefix="griffin-crowd-") as folder:
        options = ("--max-sessions", str(SLOTS), "--max-queue", str(QUEUE), "--cache-mb", "16")
        with serving((*alone.OPTIONS, *options, "--state-dir", folder)) as process:
            everyone = Crowd(process.port, seed)
            asyncio.run(everyone.run(SLOTS, 1.0))  # what is loaded once is loaded now
            before = process.descriptors
            with watched(process, seconds, progress) as samples:
                asyncio.run(everyone.run(clients, seconds))
            found.take(everyone.seen)
            found.memory = flat(samples, found.failures)
            _as_it_was(process, before, found)
            _every_slot_serves(process, seed, found)
        if left := [str(each) for each in Path(folder).rglob("*") if each.is_file()]:
            found.failures.append(f"{len(left)} files of sessions that were deleted: {left[0]}")
    return found


def streams(count: int, seed: int, progress: Progress) -> Served:
    """So many streams at once, all of them generating, a slot for each."""
    found = Served("streams", count, 0.0, count)
    _answers_alone()
    began = time.monotonic()
    with serving((*alone.OPTIONS, "--max-sessions", str(count), "--cache-mb", "0")) as process:
        before = process.descriptors
        with watched(process, 0.0, progress, found):
            asyncio.run(_all_at_once(process.port, count, seed, found, progress))
        found.seconds = round(time.monotonic() - began, 1)
        _as_it_was(process, before, found)
    return found


async def _all_at_once(port: int, count: int, seed: int, found: Served, progress: Progress) -> None:
    draw, done = Random(seed), 0

    async def one(given: alone.Alone) -> None:
        nonlocal done
        request = posted(COMPLETIONS, {**given.body, "stream": True})
        try:
            text = streamed_text(await asyncio.wait_for(call(port, request), 2 * LONGEST))
        except (GriffinError, OSError, ValueError) as error:  # a TimeoutError is an OSError
            found.failures.append(f"a stream: {type(error).__name__}: {error!s:.200}")
            return
        found.compared += 1
        if text != given.text:
            found.failures.append(f"{text!r:.200} in company, {given.text!r:.200} alone")
        done += 1
        progress(done, count)

    given = [draw.choice(alone.completions(LONG)) for _ in range(count)]
    await asyncio.gather(*(one(each) for each in given))


def _answers_alone() -> None:
    """Computed before a server needs the processor."""
    alone.completions(SHORT)
    alone.completions(LONG)
    alone.completions(LONG, logprobs=20)
    alone.session(PIECES)


@contextmanager
def watched(
    process: Process, seconds: float, progress: Progress, found: Served | None = None
) -> Generator[list[int]]:
    """Samples of a server's memory while it is entered; how many it serves at once, into `found`.

    progress: told the time, where it is known how long it takes.
    """
    samples: list[int] = []
    over, began = threading.Event(), time.monotonic()

    def look() -> None:
        while not over.wait(0.25):
            samples.append(process.memory)
            if found is not None:
                with suppress(OSError):  # too busy to say: then the next look tells
                    now = int(process.figures()["griffin_running"])
                    found.most_at_once = max(found.most_at_once, now)
            elif seconds:
                progress(round(min(time.monotonic() - began, seconds)), round(seconds))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        over.set()
        thread.join()


def flat(samples: list[int], failures: list[str]) -> dict[str, int]:
    """Holds the second half of a run's memory against the first, its first quarter apart.

    The first quarter is where pools, caches and threads come to their sizes.
    """
    if len(samples) < 8:
        return {}
    settled = samples[len(samples) // 4 :]
    middle = len(settled) // 2
    earlier, later = round(median(settled[:middle])), round(median(settled[middle:]))
    if later > earlier * (1 + GROWTH) + NOISE:
        failures.append(
            f"memory grows: {earlier >> 20} MiB in one half, {later >> 20} MiB in the next"
        )
    return {"start": samples[0], "earlier": earlier, "later": later, "most": max(samples)}


def _as_it_was(process: Process, descriptors: int, found: Served) -> None:
    """Nothing is served, waits, or is open any more; no request has failed; no session is left."""
    until = time.monotonic() + LONGEST
    while True:
        figures = process.figures()
        now = {name: figures[f"griffin_{name}"] for name in ("running", "waiting")}
        open_ = process.descriptors
        if not any(now.values()) and open_ <= descriptors + SPARE:
            break
        if time.monotonic() > until:
            found.failures.append(f"afterwards: {now}, {open_} descriptors ({descriptors} before)")
            break
        time.sleep(0.2)
    if failed := figures["griffin_failed_total"]:
        found.failures.append(f"{failed:.0f} requests failed in the engine")
    if '"data":[]' not in process.get("/v1/sessions").replace(" ", ""):
        found.failures.append("sessions that were deleted are listed")


def _every_slot_serves(process: Process, seed: int, found: Served) -> None:
    """As many requests at once as there are slots: none has to wait, so none is lost."""
    after = Served("after", SLOTS, 0.0, SLOTS)
    asyncio.run(_all_at_once(process.port, SLOTS, seed, after, lambda *_: None))
    found.compared += after.compared
    found.failures += after.failures


def plain(found: Served) -> dict[str, Any]:
    """For JSON."""
    return {**vars(found), "part": found.what, "what": "serve"}
