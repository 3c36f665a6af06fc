"""/v1/responses: each answer's state is kept, and `previous_response_id` goes on from it.

Nothing that was said before is read again: the state after a response is 17 MB in the 2B model,
however long the conversation. It lies beside the response in the state directory, so that any
server on that directory can go on.
"""

import contextlib
import json
import os
import secrets
import shutil
import time
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from ..inference.engine import Finished, Piece, Request, RowOptions
from ..inference.sampling import SEED_LIMIT
from ..models import State
from ..models.state_file import read_note
from ..text import encode_turns
from ..text.chat import encode_parts
from .bridge import Chunks, Running, sse
from .messages import prompt_of, turns_of
from .protocol import InputItem, ResponsesRequest
from .service import Service

ANSWER = "response.json"


def router(service: Service) -> APIRouter:
    """The routes."""
    routes = APIRouter(prefix="/v1/responses")
    kept = _Kept(service)

    @routes.post("")
    async def create(body: ResponsesRequest, http: HttpRequest) -> Response:
        """Answers the input, after an earlier response if one is named."""
        service.check_model(body.model)
        owner: str = http.state.owner
        messages, system = body.input, body.instructions or ""
        if isinstance(messages, str):
            messages = [InputItem(role="user", content=messages)]
        before, marks = None, list[int]()
        if body.previous_response_id is not None:
            before, tail = await run_in_threadpool(kept.load, owner, body.previous_response_id)
            turns, tokenizer = turns_of(messages, system), service.lm.tokenizer
            ids = encode_turns(tokenizer, service.template, turns, bos=False, continues=True)
            ids = service.check_prompt(tail + ids)
        else:
            ids, marks = await run_in_threadpool(prompt_of, service, messages, system)
        request = Request(
            ids=ids,
            marks=marks,
            state=before,
            options=_options(service, body),
            owner=owner,
            keep_state=body.store,
            seconds=service.settings.seconds,
        )
        call = _Call(service, body, 0 if before is None else int(before.tokens))
        running = Running(service, [request])

        async def keep(end: Finished, answer: dict[str, Any]) -> None:
            if end.state is not None:
                await run_in_threadpool(kept.save, owner, call.id, end, answer)

        if body.stream:
            return sse(call.events(running, keep), done=False)
        (end,) = await running.all(http)
        answer = call.answer(end)
        await keep(end, answer)
        return JSONResponse(answer)

    @routes.get("/{name}")
    async def retrieve(name: str, http: HttpRequest) -> Response:
        """A response that was kept."""
        return JSONResponse(await run_in_threadpool(kept.answer, http.state.owner, name))

    @routes.delete("/{name}")
    async def delete(name: str, http: HttpRequest) -> dict[str, Any]:
        """Forgets a response and its state; those that went on from it stay."""
        await run_in_threadpool(kept.delete, http.state.owner, name)
        return {"id": name, "object": "response", "deleted": True}

    _ = (create, retrieve, delete)
    return routes


class _Kept:
    """Responses and their states on disk."""

    def __init__(self, service: Service) -> None:
        self.service, self.store = service, service.responses

    def load(self, owner: str, name: str) -> tuple[State, list[int]]:
        """The state after a response, and the ids that still close its turn."""
        head = self.store.head(owner, name)
        note = read_note(head) or {}
        return State.load(head, self.service.lm), json.loads(str(note.get("tail", "[]")))

    def answer(self, owner: str, name: str) -> dict[str, Any]:
        """The response itself."""
        place = self.store.head(owner, name).parent
        return json.loads((place / ANSWER).read_text(encoding="utf-8"))

    def save(self, owner: str, name: str, end: Finished, answer: dict[str, Any]) -> None:
        """Keeps a response; beyond the limit the oldest go."""
        assert end.state is not None
        note: dict[str, object] = {"kind": "response", "tail": json.dumps(self._closing(end))}
        with self.store.lease(owner, name, new=True) as place:
            (place / ANSWER).write_text(json.dumps(answer), encoding="utf-8")
            self.store.write(place, end.state, note)
        home, most = self.store.home(owner), self.service.settings.max_responses
        if len(names := os.listdir(home)) > most:
            for old in sorted(names, key=lambda each: _age(home / each))[: len(names) - most]:
                shutil.rmtree(home / old, ignore_errors=True)

    def delete(self, owner: str, name: str) -> None:
        """Forgets a response."""
        with self.store.lease(owner, name) as place:
            self.store.head(owner, name).unlink()
            (place / ANSWER).unlink(missing_ok=True)

    def _closing(self, end: Finished) -> list[int]:
        """The ids that close the model's turn, less one that the model has written itself."""
        tokenizer = self.service.lm.tokenizer
        closing = tokenizer.split_markers(self.service.template.model_close)
        ids = encode_parts(tokenizer, closing, bos=False, continues=True)
        return ids[1:] if end.tokens and ids and end.tokens[-1].token == ids[0] else ids


def _age(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _options(service: Service, body: ResponsesRequest) -> RowOptions:
    most = service.settings.max_tokens
    return RowOptions(
        max_new_tokens=min(body.max_output_tokens or most, most),
        temperature=body.temperature,
        top_p=body.top_p,
        seed=None if body.seed is None else body.seed % SEED_LIMIT,
        stop=service.template.stop,
    )


class _Call:
    """One call, as its answer is written."""

    def __init__(self, service: Service, body: ResponsesRequest, before: int) -> None:
        self.service, self.body, self.before = service, body, before
        self.id, self.item = f"resp_{secrets.token_hex(16)}", f"msg_{secrets.token_hex(12)}"
        self.created = int(time.time())

    def answer(self, end: Finished | None) -> dict[str, Any]:
        """The response as it stands: under way without an end."""
        body, whole = self.body, end is not None and end.reason == "stop"
        status = "in_progress" if end is None else "completed" if whole else "incomplete"
        reason = None if end is None or whole else {"reason": "max_output_tokens"}
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "status": status,
            "error": None,
            "incomplete_details": reason,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "metadata": body.metadata or {},
            "model": self.service.name,
            "output": [] if end is None else [self._message(end.text, status)],
            "parallel_tool_calls": False,
            "previous_response_id": body.previous_response_id,
            "store": body.store,
            "temperature": body.temperature,
            "text": {"format": {"type": "text"}},
            "tool_choice": "none",
            "tools": [],
            "top_p": body.top_p,
            "truncation": "disabled",
            "usage": None if end is None else self._usage(end),
        }

    async def events(self, running: Running, keep: Any) -> Chunks:
        """The answer as OpenAI streams it."""
        number = -1

        def event(name: str, **more: Any) -> tuple[str, dict[str, Any]]:
            nonlocal number
            number += 1
            return name, {"type": name, "sequence_number": number, **more}

        place = {"item_id": self.item, "output_index": 0, "content_index": 0}
        yield event("response.created", response=self.answer(None))
        yield event("response.in_progress", response=self.answer(None))
        empty = self._message("", "in_progress") | {"content": []}
        yield event("response.output_item.added", output_index=0, item=empty)
        yield event("response.content_part.added", **place, part=_part(""))
        async with contextlib.aclosing(running.events()) as events:
            async for _, each in events:
                if isinstance(each, Piece) and each.text:
                    yield event("response.output_text.delta", **place, delta=each.text, logprobs=[])
        end = running.ends[0]
        answer = self.answer(end)
        await keep(end, answer)
        yield event("response.output_text.done", **place, text=end.text, logprobs=[])
        yield event("response.content_part.done", **place, part=_part(end.text))
        yield event("response.output_item.done", output_index=0, item=answer["output"][0])
        yield event(f"response.{answer['status']}", response=answer)

    def _message(self, text: str, status: str) -> dict[str, Any]:
        return {
            "id": self.item,
            "type": "message",
            "role": "assistant",
            "status": status,
            "content": [_part(text)],
        }

    def _usage(self, end: Finished) -> dict[str, Any]:
        given, made = self.before + end.prompt_tokens, len(end.tokens)
        return {
            "input_tokens": given,
            "input_tokens_details": {
                "cached_tokens": self.before + end.cached_tokens,
                "cache_write_tokens": end.written_tokens,
            },
            "output_tokens": made,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": given + made,
        }


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
