"""POST /v1/completions."""

import contextlib
import secrets
import time
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from ..errors import InputError
from ..inference.engine import Finished, Piece, Request
from .bridge import Chunks, Running, prefilled, sse
from .protocol import CompletionRequest
from .service import Service
from .tokens import completion_logprobs, finish_reason, usage


def router(service: Service) -> APIRouter:
    """The route."""
    routes = APIRouter()

    @routes.post("/v1/completions")
    async def completions(body: CompletionRequest, http: HttpRequest) -> Response:
        """Continues a text, several texts, or token ids."""
        service.check_model(body.model)
        if body.best_of not in (None, body.n):
            raise InputError("best_of is not offered; leave it out")
        if body.stream and body.echo and body.logprobs is not None:
            raise InputError("echo with logprobs is not streamed; ask without stream")
        prompts = [service.check_prompt(ids) for ids in _prompts(service, body)]
        if len(prompts) * body.n > max(service.settings.max_sessions, 1) * 16:
            raise InputError(f"{len(prompts)} prompts with n={body.n} are too many for one request")
        options = service.row_options(
            body,
            16 if body.max_tokens is None else body.max_tokens,
            logprobs=body.logprobs is not None,
            top_logprobs=body.logprobs or 0,
        )
        requests: list[Request] = []
        read: Finished | None = None
        reads: list[Finished] = []
        for ids in prompts:
            request = Request(
                ids=ids,
                options=options,
                owner=http.state.owner,
                score_prompt=body.echo and body.logprobs is not None,
                seconds=service.settings.seconds,
            )
            several, read = await prefilled(service, http, request, body.n)
            requests += several
            reads += [read] if read is not None else []
        call = _Call(service, body, prompts, reads)
        running = Running(service, requests)
        if body.stream:
            return sse(call.chunks(running), done=True)
        return JSONResponse(call.whole(await running.all(http)))

    return routes


class _Call:
    """One call, as its answers are written."""

    def __init__(
        self,
        service: Service,
        body: CompletionRequest,
        prompts: list[list[int]],
        reads: list[Finished],
    ) -> None:
        self.service, self.body, self.prompts, self.reads = service, body, prompts, reads
        self.head = {
            "id": f"cmpl-{secrets.token_hex(12)}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": service.name,
        }

    def whole(self, ends: list[Finished]) -> dict[str, Any]:
        """The answer that is not streamed."""
        choices = [self._choice(index, end) for index, end in enumerate(ends)]
        return self.head | {"choices": choices, "usage": self._usage(ends)}

    async def chunks(self, running: Running) -> Chunks:
        """The answer in chunks."""
        tokenizer = self.service.lm.tokenizer
        counts = self.body.stream_options is not None and self.body.stream_options.include_usage
        offsets = [0] * len(self.prompts) * self.body.n
        if self.body.echo:
            for index in range(len(offsets)):
                yield None, self._chunk(index, self._prompt_text(index), None, None)
        async with contextlib.aclosing(running.events()) as events:
            async for index, event in events:
                if isinstance(event, Piece):
                    scores = None
                    if self.body.logprobs is not None:
                        scores = completion_logprobs(tokenizer, event.tokens, offsets[index])
                    offsets[index] += len(event.text)
                    yield None, self._chunk(index, event.text, scores, None)
                elif isinstance(event, Finished):
                    yield None, self._chunk(index, "", None, finish_reason(event))
        if counts:
            ends = [running.ends[index] for index in sorted(running.ends)]
            yield None, self.head | {"choices": [], "usage": self._usage(ends)}

    def _usage(self, ends: list[Finished]) -> dict[str, Any]:
        counted = usage(self.reads or ends)
        generated = sum(len(end.tokens) for end in ends)
        total = counted["prompt_tokens"] + generated
        return counted | {"completion_tokens": generated, "total_tokens": total}

    def _chunk(
        self, index: int, text: str, scores: dict[str, Any] | None, reason: str | None
    ) -> dict[str, Any]:
        choice = {"index": index, "text": text, "logprobs": scores, "finish_reason": reason}
        return self.head | {"choices": [choice]}

    def _choice(self, index: int, end: Finished) -> dict[str, Any]:
        tokenizer = self.service.lm.tokenizer
        text, scores = end.text, None
        if self.body.echo:
            text = self._prompt_text(index) + text
        if self.body.logprobs is not None:
            tokens, first = end.tokens, None
            if self.body.echo:
                prompt = (self.reads[index // self.body.n] if self.reads else end).prompt
                tokens, first = (*prompt, *end.tokens), self.prompts[index // self.body.n][0]
            scores = completion_logprobs(tokenizer, tokens, 0, first)
        return {
            "index": index,
            "text": text,
            "logprobs": scores,
            "finish_reason": finish_reason(end),
        }

    def _prompt_text(self, index: int) -> str:
        return self.service.lm.tokenizer.decode(self.prompts[index // self.body.n])


def _prompts(service: Service, body: CompletionRequest) -> list[list[int]]:
    """The ids of each prompt; text gets BOS, ids are taken as they are."""
    prompt: Any = body.prompt
    if isinstance(prompt, str) or (prompt and isinstance(prompt[0], int)):
        prompt = [prompt]
    if not prompt:
        raise InputError("prompt is empty; give a text, token ids, or a list of either")
    ids = [service.lm.encode(each) if isinstance(each, str) else list(each) for each in prompt]
    if not all(ids):
        raise InputError("a prompt is empty; give at least one token")
    return ids
