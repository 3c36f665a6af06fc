"""Tokens, their scores and counts as OpenAI's answers show them."""

from collections.abc import Sequence
from typing import Any

from ..inference.engine import Finished, Scored
from ..text import Tokenizer


def token_text(tokenizer: Tokenizer, token: int) -> str:
    """A token as text: its characters, its bytes where they are none, its name if it is special."""
    raw = tokenizer.bytes_of(token)
    if not raw:
        return tokenizer.piece(token)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)


def chat_logprobs(tokenizer: Tokenizer, tokens: Sequence[Scored]) -> dict[str, Any]:
    """`logprobs` of a choice of a chat."""

    def entry(token: int, logprob: float) -> dict[str, Any]:
        return {
            "token": token_text(tokenizer, token),
            "logprob": logprob,
            "bytes": list(tokenizer.bytes_of(token)),
        }

    content = [
        entry(each.token, each.logprob) | {"top_logprobs": [entry(*top) for top in each.top]}
        for each in tokens
    ]
    return {"content": content, "refusal": None}


def completion_logprobs(
    tokenizer: Tokenizer, tokens: Sequence[Scored], offset: int = 0, first: int | None = None
) -> dict[str, Any]:
    """`logprobs` of a choice of a completion; `first`: a token in front that has no score."""
    names: list[str] = []
    scores: list[float | None] = []
    tops: list[dict[str, float] | None] = []
    offsets: list[int] = []
    if first is not None:
        names, scores, tops, offsets = [token_text(tokenizer, first)], [None], [None], [offset]
        offset += len(tokenizer.bytes_of(first).decode(errors="replace"))
    for each in tokens:
        names.append(token_text(tokenizer, each.token))
        scores.append(each.logprob)
        tops.append({token_text(tokenizer, token): value for token, value in each.top})
        offsets.append(offset)
        offset += len(tokenizer.bytes_of(each.token).decode(errors="replace"))
    return {
        "tokens": names,
        "token_logprobs": scores,
        "top_logprobs": tops,
        "text_offset": offsets,
    }


def usage(ends: Sequence[Finished], read: Finished | None = None) -> dict[str, Any]:
    """`usage` of completions and chats. read: the end of a prompt that was read for all of them."""
    prompts = [read] if read is not None else ends
    prompt = sum(end.prompt_tokens for end in prompts)
    generated = sum(len(end.tokens) for end in ends)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": generated,
        "total_tokens": prompt + generated,
        "prompt_tokens_details": {
            "cached_tokens": sum(end.cached_tokens for end in prompts),
            "cache_write_tokens": sum(end.written_tokens for end in prompts),
        },
    }


def finish_reason(end: Finished) -> str:
    """`finish_reason`: what ran out of time was cut for its length."""
    return "stop" if end.reason == "stop" else "length"
