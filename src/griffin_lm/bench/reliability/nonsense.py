"""Requests that no server should take, and none should be hurt by."""

import json
from collections.abc import Callable, Sequence
from random import Random

from ..serving.http import message, posted

COMPLETIONS = "/v1/completions"


def _json(draw: Random) -> bytes:
    text = json.dumps({"prompt": "The wind", "max_tokens": 3})
    return message("POST", COMPLETIONS, text[: draw.randrange(1, len(text))].encode())


def _types(draw: Random) -> bytes:
    body = {"prompt": "a", "max_tokens": 3}
    wrong = ({}, [], "many", None, -1, 1e300, True, [[]], {"a": 1}, "\ud83d\ude00" * 9)
    key = draw.choice(("prompt", "max_tokens", "temperature", "seed", "stop", "n", "logit_bias"))
    body |= {key: draw.choice(wrong), "no_such_field": 1}
    return posted(COMPLETIONS, body)


def _bytes(draw: Random) -> bytes:
    return message("POST", COMPLETIONS, draw.randbytes(draw.randrange(1, 2000)))


def _nested(draw: Random) -> bytes:
    depth = draw.randrange(100, 20_000)
    return message("POST", COMPLETIONS, b'{"prompt": ' + b"[" * depth + b"]" * depth + b"}")


def _endless(draw: Random) -> bytes:
    size = draw.choice((1 << 24, 1 << 40, 1 << 70))
    head = f"POST {COMPLETIONS} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n"
    return head.encode() + b"{"


def _nowhere(draw: Random) -> bytes:
    path = draw.choice(("/", "/v1/", "/v1/sessions/none/append", "/v1/../../etc/passwd", "/%00"))
    method = draw.choice(("POST", "DELETE", "BREW"))
    return message(method, path, draw.randbytes(9), "text/plain")


def _line(draw: Random) -> bytes:
    return draw.randbytes(draw.randrange(1, 300)) + b"\r\n\r\n"


KINDS: Sequence[Callable[[Random], bytes]] = (
    *(_json, _types, _bytes, _nested, _endless, _nowhere, _line),
)


def wrong(status: int) -> bool:
    """Whether this is no refusal. 0: the server closed the connection, as it may."""
    return status != 0 and not 400 <= status < 500
