"""Appending to a session: a text of any length is read while the client waits, or watches."""

import asyncio
import codecs
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any

from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from ..errors import InputError
from ..inference.sessions import Info, Sessions
from ..inference.transcript import cache_bytes
from ..models import State
from .bridge import Chunks, sse
from .protocol import Append
from .service import Service

SPOOL = 1 << 20  # bytes of an upload that stay in memory; what is longer goes to a file
BLOCK = 1 << 16

Shown = Callable[[Info], dict[str, Any]]
GoingOn = Callable[[State], bool]


async def appended(service: Service, name: str, http: HttpRequest, shown: Shown) -> Response:
    """Reads the request's text into a session: the session as JSON, or events up to it."""
    owner: str = http.state.owner
    await run_in_threadpool(service.sessions.info, owner, name)
    raw = http.query_params.get("raw", "false") == "true"
    mine = Sessions(
        service.lm, service.sessions.store, lambda ids, state: service.read(ids, state, owner)
    )
    body = tempfile.SpooledTemporaryFile(SPOOL)  # noqa: SIM115 - closed by the thread that reads it
    try:
        async for block in http.stream():
            await run_in_threadpool(body.write, block)
        body.seek(0)
        if http.headers.get("content-type", "").startswith("text/plain"):
            text: Iterable[str] = _texts(body)
            note = False
        else:
            given = _json(body, service.settings.max_body)
            text, raw, note = [given.text], given.raw, given.note
    except BaseException:
        body.close()
        raise

    def read(going_on: GoingOn) -> Info:
        with body:
            return mine.append(owner, name, text, raw, note, going_on)

    if http.query_params.get("stream", "false") == "true":
        return sse(_watched(service, name, read, shown), done=True)
    return JSONResponse(shown(await run_in_threadpool(read, lambda _: True)))


async def _watched(
    service: Service, name: str, read: Callable[[GoingOn], Info], shown: Shown
) -> Chunks:
    """How far the reading is, whenever there is something new, and the session at its end.

    A client who leaves stops it; what was read until then stays read.
    """
    loop, news, gone = asyncio.get_running_loop(), asyncio.Event(), threading.Event()
    latest: dict[str, Any] = {}

    def going_on(state: State) -> bool:
        tokens = int(state.tokens)
        latest.update(
            tokens=tokens, bytes=state.nbytes, growing_cache_bytes=cache_bytes(service.lm, tokens)
        )
        loop.call_soon_threadsafe(news.set)
        return not gone.is_set()

    reading = asyncio.ensure_future(run_in_threadpool(read, going_on))
    reading.add_done_callback(lambda _: news.set())
    try:
        while not reading.done():
            await news.wait()
            news.clear()
            if latest and not reading.done():
                yield None, {"id": name, "object": "session.progress", **latest}
        yield None, shown(await reading)
    finally:
        gone.set()
        if not reading.done():  # nobody waits for it: what it fails with is for the log alone
            reading.add_done_callback(lambda done: done.cancelled() or done.exception())


def _texts(body: IO[bytes]) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        while block := body.read(BLOCK):
            yield decoder.decode(block)
        yield decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise InputError("the text is not UTF-8") from error


def _json(body: IO[bytes], most: int) -> Append:
    data = body.read(most + 1)
    if len(data) > most:
        raise InputError(
            f"a JSON body may have {most} bytes; send longer texts as they are, as text/plain"
        )
    try:
        return Append.model_validate_json(data)
    except ValidationError as error:
        raise InputError(f"the body is no {{'text': ...}}: {error.errors()[0]['msg']}") from error
