"""From the engine's thread to the event loop: events as they come, ends, and server-sent events."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import StreamingResponse

from ..errors import Overloaded
from ..inference.engine import Event, Failed, Finished, Job, Piece, Request
from .service import Service

Chunks = AsyncGenerator[tuple[str | None, dict[str, Any]]]
LOOK = 0.25  # seconds between two looks whether a client who waits is still there


class Cancelled(Exception):
    """The client has gone, or the server is closing."""


class Running:
    """Requests of one call, all of them submitted; a context manager that ends what is left.

    Events come as (index of the request, event).
    """

    def __init__(self, service: Service, requests: Sequence[Request]) -> None:
        self.service = service
        self.ends: dict[int, Finished] = {}
        self._events: asyncio.Queue[tuple[int, Event, float]] = asyncio.Queue()
        self._jobs: list[Job] = []
        loop = asyncio.get_running_loop()
        try:
            for index, request in enumerate(requests):

                def tell(event: Event, index: int = index) -> None:
                    came = (index, event, time.perf_counter())
                    loop.call_soon_threadsafe(self._events.put_nowait, came)

                self._jobs.append(service.engine.submit(request, tell))
        except Exception:
            self.cancel()
            raise

    def cancel(self) -> None:
        """Ends all that is under way."""
        for job in self._jobs:
            job.cancel()

    async def events(self, http: HttpRequest | None = None) -> AsyncGenerator[tuple[int, Event]]:
        """All events, until every request has ended. Raises what one failed with.

        http: a client who waits for the end; gone, the requests are cancelled. None: events are
        streamed; each is asked for once the one before it is written, so its delay is known here.
        """
        looked = time.monotonic()
        try:
            while len(self.ends) < len(self._jobs):
                if time.monotonic() - looked >= LOOK:  # also while events come one after another
                    looked = time.monotonic()
                    if http is not None and await http.is_disconnected():
                        raise Cancelled
                if self._events.empty():
                    try:
                        came = await asyncio.wait_for(self._events.get(), LOOK)
                    except TimeoutError:
                        continue
                else:
                    came = self._events.get_nowait()
                index, event, ready = came
                if isinstance(event, Failed):
                    raise event.error
                if isinstance(event, Finished):
                    self.ends[index] = event
                    self.service.metrics.finished(event)
                yield index, event
                if http is None and isinstance(event, Piece):
                    self.service.metrics.delay.observe(time.perf_counter() - ready)
        finally:
            self.cancel()

    async def all(self, http: HttpRequest) -> list[Finished]:
        """The ends, in order."""
        async with contextlib.aclosing(self.events(http)) as events:
            async for _ in events:
                pass
        return [self.ends[index] for index in range(len(self._jobs))]


async def prefilled(
    service: Service, http: HttpRequest, request: Request, choices: int
) -> tuple[list[Request], Finished | None]:
    """The requests for several choices of one prompt, which is read once."""
    if choices == 1:
        return [request], None
    options = request.options
    only_read = replace(request, options=replace(options, max_new_tokens=0), keep_state=True)
    (read,) = await Running(service, [only_read]).all(http)
    if read.state is None:
        raise Overloaded("the request ran out of time before its prompt was read")
    seed = options.seed
    return [
        replace(
            request,
            ids=(),
            state=read.state,
            score_prompt=False,
            options=replace(options, seed=None if seed is None else (seed + i) % 2**63),
        )
        for i in range(choices)
    ], read


def sse(chunks: Chunks, done: bool) -> StreamingResponse:
    """Chunks as server-sent events, (name of the event or None, data); at the end "[DONE]".

    An error in between is a chunk with "error", as OpenAI sends it.
    """
    from .errors import error_body

    async def lines() -> AsyncIterator[bytes]:
        try:
            async with contextlib.aclosing(chunks):
                async for name, data in chunks:
                    yield _line(name, data)
        except Cancelled:
            return
        except Exception as error:
            _, body = error_body(error)
            yield _line("error" if not done else None, body)
        if done:
            yield b"data: [DONE]\n\n"

    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(lines(), media_type="text/event-stream", headers=headers)


def _line(name: str | None, data: Mapping[str, Any]) -> bytes:
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(data, ensure_ascii=False)}\n\n".encode()
