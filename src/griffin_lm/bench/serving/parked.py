"""Very many sessions on one disk: parked by one server, which is killed, answered by the next."""

import asyncio
import io
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from random import Random
from statistics import median

from ...errors import GriffinError
from ...inference import GenerateOptions, LanguageModel, ask, load, read_text
from ...shapes import JSON
from .http import Answer, call, message, posted
from .process import serving

AT_ONCE = 8
SAMPLED = 100  # sessions that are asked one by one, for time, and their answers compared
OPTIONS = ("--max-sessions", str(AT_ONCE), "--max-queue", "64")
_QUESTION = "What is it?"

Progress = Callable[[int, int], None]


def text(number: int) -> str:
    """What a session has read: no two the same, and of several lengths."""
    return f"The number of this session is {number}. " + "It was long ago. " * (number % 7)


def measure(count: int, progress: Progress) -> list[JSON]:
    """A row. Raises GriffinError for a session that is not there, or not as it was left."""
    lm = load("fledgling", device="cpu")
    tokens = [len(lm.encode(text(number))) for number in range(count)]
    folder = Path(tempfile.mkdtemp(prefix="griffin-parked-", dir="."))
    try:
        options = (*OPTIONS, "--state-dir", str(folder))
        with serving(options) as process:
            began = time.perf_counter()
            asyncio.run(_park(process.port, tokens, lambda done: progress(done, 2 * count)))
            parking = time.perf_counter() - began
            process.kill()
        began = time.perf_counter()
        with serving(options) as process:
            starting = time.perf_counter() - began
            listed, listing = _timed(process.port, message("GET", "/v1/sessions"))
            there = {each["id"]: each["tokens"] for each in listed.json()["data"]}
            if there != {f"s{number}": tokens[number] for number in range(count)}:
                raise GriffinError(f"{len(there)} sessions are listed, {count} were parked")
            resumed = _resumed(process.port, lm, count)
            began = time.perf_counter()
            asyncio.run(
                _ask_all(process.port, tokens, lambda done: progress(count + done, 2 * count))
            )
            asking = time.perf_counter() - began
        files = [each.stat() for each in folder.rglob("*") if each.is_file()]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return [
        {
            "what": "parked sessions",
            "who": "griffin",
            "sessions": count,
            "answered": count,
            "bytes": sum(each.st_size for each in files),
            "disk_bytes": sum(each.st_blocks * 512 for each in files),
            "parking_seconds": parking,
            "start_seconds": starting,
            "list_seconds": listing,
            "resume_seconds": median(resumed),
            "resume_p99_seconds": sorted(resumed)[int(0.99 * (len(resumed) - 1))],
            "answer_all_seconds": asking,
        }
    ]


async def _park(port: int, tokens: list[int], progress: Callable[[int], None]) -> None:
    async def park(number: int) -> None:
        _right(await call(port, posted("/v1/sessions", {"id": f"s{number}"})))
        body = {"text": text(number), "raw": True}
        told = _right(await call(port, posted(f"/v1/sessions/s{number}/append", body)))
        if told.json()["tokens"] != tokens[number]:
            raise GriffinError(f"session {number} has {told.json()['tokens']} tokens")

    await _each(range(len(tokens)), park, progress)


async def _ask_all(port: int, tokens: list[int], progress: Callable[[int], None]) -> None:
    """Every session answers, out of a state of its own number of tokens."""

    async def one(number: int) -> None:
        told = _right(await call(port, _asked(number, 1))).json()
        found = told["usage"]["prompt_tokens_details"]["cached_tokens"]
        if found != tokens[number]:
            raise GriffinError(f"session {number} answers out of {found} tokens")

    await _each(range(len(tokens)), one, progress)


async def _each(
    numbers: Iterable[int],
    do: Callable[[int], Awaitable[None]],
    progress: Callable[[int], None],
) -> None:
    """Does it for each number, a few at once."""
    waiting, done = iter(numbers), 0

    async def worker() -> None:
        nonlocal done
        for number in waiting:
            await do(number)
            done += 1
            progress(done)

    await asyncio.gather(*(worker() for _ in range(AT_ONCE)))


def _resumed(port: int, lm: LanguageModel, count: int) -> list[float]:
    """Seconds to the end of a short answer of sessions drawn at random, each compared."""
    seconds: list[float] = []
    for number in Random(0).sample(range(count), min(SAMPLED, count)):
        told, took = _timed(port, _asked(number, 4))
        seconds.append(took)
        state = read_text(lm, io.BytesIO(text(number).encode()), raw=True).state
        assert state is not None
        options = GenerateOptions(max_new_tokens=4)
        expected = "".join(ask(lm, _QUESTION, state, options, in_turn=False))
        if (said := told.json()["choices"][0]["message"]["content"]) != expected:
            raise GriffinError(f"session {number} says {said!r}, not {expected!r}")
    return seconds


def _asked(number: int, tokens: int) -> bytes:
    body = {"input": _QUESTION, "temperature": 0, "max_tokens": tokens}
    return posted(f"/v1/sessions/s{number}/ask", body)


def _timed(port: int, request: bytes) -> tuple[Answer, float]:
    began = time.perf_counter()
    answer = _right(asyncio.run(call(port, request)))
    return answer, time.perf_counter() - began


def _right(answer: Answer) -> Answer:
    if not 200 <= answer.status < 300:
        raise GriffinError(f"a session is answered with {answer.status}: {answer.body[:200]!r}")
    return answer
