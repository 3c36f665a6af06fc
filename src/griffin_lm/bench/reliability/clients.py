"""A crowd of clients for a server: some read slowly, some leave, some send nonsense.

Every answer is compared with the one that the same request gets alone (`alone.py`). What a client
does next is drawn from the seed and its number.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

from ...errors import GriffinError
from ..serving.http import Answer, call, connection, message, parsed, posted
from . import alone, nonsense

COMPLETIONS = nonsense.COMPLETIONS
LONGEST = 300.0  # seconds for anything a client does; the machine may be busy with other things
SHORT, LONG = 10, 100  # tokens of an answer
PIECES = 4  # that a session is given at most


@dataclass
class Seen:
    """What the crowd has met. failures: rules that were broken, in words."""

    done: Counter[str] = field(default_factory=Counter[str])
    compared: int = 0
    refused: int = 0
    failures: list[str] = field(default_factory=list[str])

    def compare(self, what: str, got: object, wanted: object) -> None:
        """Notes an answer, and that it differs where it does."""
        self.compared += 1
        if got != wanted:
            self.failures.append(f"{what}: {got!r:.200} in company, {wanted!r:.200} alone")


class _Over(Exception):
    """There is no time to ask once more."""


class Crowd:
    """Clients of the server at a port."""

    def __init__(self, port: int, seed: int) -> None:
        self.port, self.seed, self.seen = port, seed, Seen()
        self.until = 0.0

    async def run(self, clients: int, seconds: float) -> None:
        """So many at once, each doing one thing after the other until the time is over."""
        self.until = time.monotonic() + seconds
        await asyncio.gather(*(self._client(number) for number in range(clients)))

    async def _client(self, number: int) -> None:
        draw = Random(f"{self.seed} {number}")
        names, weights = list(HABITS), [habit.weight for habit in HABITS.values()]
        while time.monotonic() < self.until:
            (name,) = draw.choices(names, weights)
            try:
                await asyncio.wait_for(HABITS[name].do(self, draw), LONGEST)
                self.seen.done[name] += 1
            except _Over:
                return
            except TimeoutError:
                self.seen.failures.append(f"{name}: no end after {LONGEST:.0f} s")
            except (GriffinError, OSError, ValueError, LookupError, TypeError) as error:
                self.seen.failures.append(f"{name}: {type(error).__name__}: {error!s:.200}")

    async def ask(self, request: bytes, draw: Random, room: int = 0) -> Answer:
        """An answer that is no 429: who is told to wait does so, a little, while there is time.

        room: bytes that are taken at once, slowly; 0: all as they come.
        """
        while True:
            answer = await (self._slowly(request, draw, room) if room else call(self.port, request))
            if answer.status != 429:
                break
            self.seen.refused += 1
            if not answer.headers.get("retry-after", "").isdigit():
                self.seen.failures.append("a 429 does not say when to come again")
            if time.monotonic() > self.until:
                raise _Over
            await asyncio.sleep(draw.uniform(0.05, 0.5))
        if not 200 <= answer.status < 300:
            self.seen.failures.append(f"status {answer.status}: {answer.body[:200]!r}")
        return answer

    async def _slowly(self, request: bytes, draw: Random, room: int) -> Answer:
        """Takes a little at a time; the server has to keep the rest, or to wait."""
        got, pause = bytearray(), draw.uniform(0.0, 0.02)
        async with connection(self.port, room) as (reader, writer):
            writer.write(request)
            while part := await reader.read(room):
                got += part
                await asyncio.sleep(pause)
        return parsed(bytes(got))


async def _whole(crowd: Crowd, draw: Random) -> None:
    one = draw.choice(alone.completions(SHORT))
    answer = await crowd.ask(posted(COMPLETIONS, one.body), draw)
    crowd.seen.compare("completion", answer.json()["choices"][0]["text"], one.text)


async def _streamed(crowd: Crowd, draw: Random) -> None:
    one = draw.choice(alone.completions(SHORT))
    answer = await crowd.ask(posted(COMPLETIONS, {**one.body, "stream": True}), draw)
    crowd.seen.compare("stream", streamed_text(answer), one.text)


async def _slow(crowd: Crowd, draw: Random) -> None:
    # likely others with every token make the answer larger than what the line holds
    one = draw.choice(alone.completions(LONG, logprobs=20))
    answer = await crowd.ask(posted(COMPLETIONS, {**one.body, "stream": True}), draw, room=2048)
    crowd.seen.compare("slow stream", streamed_text(answer), one.text)


async def _leaves(crowd: Crowd, draw: Random) -> None:
    """Goes before the answer is there, in the middle of it, or of its own request."""
    body = {**draw.choice(alone.completions(LONG)).body, "stream": draw.random() < 0.7}
    request = posted(COMPLETIONS, body)
    if draw.random() < 0.2:
        request = request[: draw.randrange(1, len(request))]
    async with connection(crowd.port) as (reader, writer):
        writer.write(request)
        try:
            async with asyncio.timeout(draw.uniform(0.0, 0.5)):
                await reader.readexactly(draw.randrange(1, 4000))
        except (TimeoutError, asyncio.IncompleteReadError):
            return


async def _nonsense(crowd: Crowd, draw: Random) -> None:
    request = draw.choice(nonsense.KINDS)(draw)
    async with connection(crowd.port) as (reader, writer):
        writer.write(request)
        try:
            async with asyncio.timeout(10.0 if draw.random() < 0.5 else 0.1):
                answer = parsed(await reader.read(-1))
        except (TimeoutError, ConnectionError):  # it waits for more of what will not come
            return
    if nonsense.wrong(answer.status):
        crowd.seen.failures.append(f"nonsense got {answer.status}: {request[:200]!r}")


async def _session(crowd: Crowd, draw: Random) -> None:
    """Made, read into, asked, deleted."""
    made = await crowd.ask(posted("/v1/sessions", {}), draw)
    place = f"/v1/sessions/{made.json()['id']}"
    count = draw.randrange(1, PIECES + 1)
    try:
        for number in range(count):
            answer = await crowd.ask(posted(f"{place}/append", alone.piece(number)), draw)
            tokens = alone.session(number + 1).tokens
            crowd.seen.compare("append", answer.json()["tokens"], tokens)
        answer = await crowd.ask(posted(f"{place}/ask", alone.question()), draw)
        said = answer.json()["choices"][0]["message"]["content"]
        crowd.seen.compare("question", said, alone.session(count).answer)
    finally:
        await crowd.ask(message("DELETE", place), draw)


@dataclass(frozen=True)
class Habit:
    """What a client may do. weight: how often, beside the others."""

    weight: int
    do: Callable[[Crowd, Random], Awaitable[None]]


HABITS: Mapping[str, Habit] = {
    "answered": Habit(4, _whole),
    "streamed": Habit(4, _streamed),
    "read slowly": Habit(1, _slow),
    "left": Habit(4, _leaves),
    "nonsense": Habit(3, _nonsense),
    "session": Habit(1, _session),
}


def streamed_text(answer: Answer) -> str:
    """The text of a streamed completion. Raises GriffinError where its end is missing."""
    if not answer.body.endswith(b"data: [DONE]\n\n"):
        raise GriffinError(f"a stream ends with {answer.body[-99:]!r}")
    events: list[Any] = answer.events()
    if wrong := [event["error"] for event in events if "error" in event]:
        raise GriffinError(f"a stream says {wrong[0]}")
    return "".join(choice["text"] for event in events for choice in event["choices"])
