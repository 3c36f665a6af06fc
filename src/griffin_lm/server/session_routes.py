"""/v1/sessions: states with names, that texts are appended to and questions asked of."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from fastapi.responses import FileResponse
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from ..errors import InputError
from ..inference.asking import question_ids
from ..inference.engine import Request
from ..inference.sessions import Info
from ..inference.transcript import cache_bytes
from .appending import appended
from .bridge import Running, sse
from .chat import Answer
from .protocol import Ask, CreateSession, Fork, Rewind
from .service import Service


def router(service: Service) -> APIRouter:
    """The routes."""
    routes = APIRouter(prefix="/v1/sessions")
    sessions = service.sessions

    def shown(info: Info) -> dict[str, Any]:
        return _shown(service, info)

    @routes.post("", status_code=201)
    async def create(http: HttpRequest, body: CreateSession | None = None) -> dict[str, Any]:
        """A new session that has read nothing."""
        name = None if body is None else body.id
        return shown(await run_in_threadpool(sessions.create, http.state.owner, name))

    @routes.get("")
    async def every(http: HttpRequest) -> dict[str, Any]:
        """All sessions of this key."""
        found = await run_in_threadpool(sessions.every, http.state.owner)
        return {"object": "list", "data": [shown(info) for info in found]}

    @routes.get("/{name}")
    async def info(name: str, http: HttpRequest) -> dict[str, Any]:
        """A session as it stands."""
        return shown(await run_in_threadpool(sessions.info, http.state.owner, name))

    @routes.delete("/{name}")
    async def delete(name: str, http: HttpRequest) -> dict[str, Any]:
        """Deletes a session, with its marks."""
        await run_in_threadpool(sessions.delete, http.state.owner, name)
        return {"id": name, "object": "session.deleted", "deleted": True}

    @routes.post("/{name}/append", response_model=None)
    async def append(name: str, http: HttpRequest) -> Response:
        """Reads a text of any length: JSON {"text"}, or the text itself as text/plain (UTF-8).

        `?raw=true` leaves the user's turn alone; `?stream=true` tells how far it is.
        """
        return await appended(service, name, http, shown)

    @routes.post("/{name}/ask")
    async def ask(name: str, body: Ask, http: HttpRequest) -> Response:
        """A question, put to a fork that is thrown away: the session stays as it is."""
        state, in_turn = await run_in_threadpool(sessions.state, http.state.owner, name)
        if not body.input.strip():
            raise InputError("input is empty; ask something")
        ids = question_ids(service.lm, body.input, in_turn, int(state.tokens) == 0)
        request = Request(
            ids=service.check_prompt(ids),
            state=state,
            options=service.row_options(body, body.max_completion_tokens or body.max_tokens),
            owner=http.state.owner,
            seconds=service.settings.seconds,
        )
        running, read = Running(service, [request]), int(state.tokens)
        if body.stream:
            counts = body.stream_options is not None and body.stream_options.include_usage
            return sse(Answer(service).chunks(running, counts), done=True)
        ends = [
            replace(end, prompt_tokens=end.prompt_tokens + read, cached_tokens=read)
            for end in await running.all(http)
        ]
        return JSONResponse(Answer(service).whole(ends))

    @routes.post("/{name}/fork", status_code=201)
    async def fork(name: str, http: HttpRequest, body: Fork | None = None) -> dict[str, Any]:
        """Another session that stands where this one does."""
        new = None if body is None else body.id
        return shown(await run_in_threadpool(sessions.fork, http.state.owner, name, new))

    @routes.post("/{name}/rewind")
    async def rewind(name: str, body: Rewind, http: HttpRequest) -> dict[str, Any]:
        """Returns to a mark: one of the numbers in "marks"."""
        return shown(await run_in_threadpool(sessions.rewind, http.state.owner, name, body.tokens))

    @routes.get("/{name}/state", response_class=FileResponse)
    async def download(name: str, http: HttpRequest) -> Response:
        """The session as one safetensors file, which `griffin ask --state` takes too."""
        head = await run_in_threadpool(sessions.store.head, http.state.owner, name)
        return FileResponse(head, media_type="application/octet-stream", filename=f"{name}.state")

    @routes.put("/{name}/state", status_code=201)
    async def upload(name: str, http: HttpRequest) -> dict[str, Any]:
        """A new session from such a file, of this or another machine."""
        sessions.store.place(http.state.owner, name)
        with tempfile.NamedTemporaryFile() as file:
            async for block in http.stream():
                await run_in_threadpool(file.write, block)
            file.flush()
            path = Path(file.name)
            done = await run_in_threadpool(sessions.upload, http.state.owner, name, path)
        return shown(done)

    _ = (create, every, info, delete, append, ask, fork, rewind, download, upload)
    return routes


def _shown(service: Service, info: Info) -> dict[str, Any]:
    return {
        "id": info.name,
        "object": "session",
        "created_at": info.created,
        "tokens": info.tokens,
        "bytes": info.nbytes,
        "growing_cache_bytes": cache_bytes(service.lm, info.tokens),
        "marks": list(info.marks),
        "in_turn": info.in_turn,
    }
