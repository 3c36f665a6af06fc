"""POST /v1/chat/completions, and the prompts of conversations."""

import contextlib
import secrets
import time
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from ..errors import InputError
from ..inference.engine import Finished, Piece, Request
from .bridge import Chunks, Running, prefilled, sse
from .messages import prompt_of
from .protocol import ChatRequest
from .service import Service
from .tokens import chat_logprobs, finish_reason, usage


def router(service: Service) -> APIRouter:
    """The route."""
    routes = APIRouter()

    @routes.post("/v1/chat/completions")
    async def chat(body: ChatRequest, http: HttpRequest) -> Response:
        """Answers a conversation, in the model's own turns or in plain words."""
        service.check_model(body.model)
        if body.top_logprobs is not None and not body.logprobs:
            raise InputError("top_logprobs wants logprobs=true")
        ids, marks = await run_in_threadpool(prompt_of, service, body.messages)
        request = Request(
            ids=ids,
            marks=marks,
            options=service.row_options(
                body,
                body.max_completion_tokens or body.max_tokens,
                logprobs=body.logprobs,
                top_logprobs=body.top_logprobs or 0,
                further_stops=service.template.stop,
            ),
            owner=http.state.owner,
            seconds=service.settings.seconds,
        )
        requests, read = await prefilled(service, http, request, body.n)
        answer = Answer(service, body.logprobs, read)
        running = Running(service, requests)
        if body.stream:
            counts = body.stream_options is not None and body.stream_options.include_usage
            return sse(answer.chunks(running, counts), done=True)
        return JSONResponse(answer.whole(await running.all(http)))

    return routes


class Answer:
    """The answers to one call, as chats write them; also of a question to a session."""

    def __init__(
        self, service: Service, logprobs: bool = False, read: Finished | None = None
    ) -> None:
        self.service, self.logprobs, self.read = service, logprobs, read
        self.id, self.created = f"chatcmpl-{secrets.token_hex(12)}", int(time.time())

    def whole(self, ends: Sequence[Finished]) -> dict[str, Any]:
        """The answer that is not streamed."""
        tokenizer = self.service.lm.tokenizer
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": end.text, "refusal": None},
                "logprobs": chat_logprobs(tokenizer, end.tokens) if self.logprobs else None,
                "finish_reason": finish_reason(end),
            }
            for index, end in enumerate(ends)
        ]
        return self._head("chat.completion") | {"choices": choices, "usage": usage(ends, self.read)}

    async def chunks(self, running: Running, counts: bool) -> Chunks:
        """The answer in chunks."""
        begun: set[int] = set()
        async with contextlib.aclosing(running.events()) as events:
            async for index, event in events:
                if index not in begun:
                    begun.add(index)
                    yield None, self._chunk(index, {"role": "assistant", "content": ""})
                if isinstance(event, Piece):
                    yield None, self._chunk(index, {"content": event.text}, event)
                elif isinstance(event, Finished):
                    yield None, self._chunk(index, {}, reason=finish_reason(event))
        if counts:
            ends = [running.ends[index] for index in sorted(running.ends)]
            last = {"choices": [], "usage": usage(ends, self.read)}
            yield None, self._head("chat.completion.chunk") | last

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.service.name,
        }

    def _chunk(
        self,
        index: int,
        delta: dict[str, Any],
        piece: Piece | None = None,
        reason: str | None = None,
    ) -> dict[str, Any]:
        scores = None
        if self.logprobs and piece is not None:
            scores = chat_logprobs(self.service.lm.tokenizer, piece.tokens)
        choice = {"index": index, "delta": delta, "logprobs": scores, "finish_reason": reason}
        return self._head("chat.completion.chunk") | {"choices": [choice]}
