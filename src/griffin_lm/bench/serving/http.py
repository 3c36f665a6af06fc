"""HTTP by hand: a client may read slowly, leave in the middle, or send what is no request.

A connection serves one request: the answer is what comes until the server closes.
"""

import asyncio
import json
import re
import socket
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

_TEXT = re.compile(rb"^data: (\{.*\})$", re.MULTILINE)


@dataclass(frozen=True)
class Answer:
    """status 0: the server closed without one."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: bytes = b""

    def json(self) -> Any:
        """The body as JSON. Raises ValueError where it is none."""
        return json.loads(self.body)

    def events(self) -> list[Any]:
        """Data of the server-sent events that the body has whole, "[DONE]" apart."""
        return [json.loads(data) for data in _TEXT.findall(self.body)]


def message(method: str, path: str, body: bytes = b"", kind: str = "application/json") -> bytes:
    """A request as it goes over the line."""
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def posted(path: str, body: Mapping[str, Any]) -> bytes:
    """A POST of JSON."""
    return message("POST", path, json.dumps(body).encode())


def parsed(data: bytes) -> Answer:
    """An answer as it came, whole or cut off anywhere; without a head, one with status 0."""
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    words = first.split()
    if len(words) < 2 or not words[1].isdigit():
        return Answer(0, {}, data)
    pairs = (line.partition(":") for line in lines)
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    if headers.get("transfer-encoding") == "chunked":
        body = _joined(body)
    return Answer(int(words[1]), headers, body)


def _joined(body: bytes) -> bytes:
    """The chunks of a body without their lengths, as far as they came."""
    found, at = bytearray(), 0
    while (end := body.find(b"\r\n", at)) >= 0 and (size := int(body[at:end], 16)):
        found += body[end + 2 : end + 2 + size]
        at = end + 2 + size + 2
    return bytes(found)


@asynccontextmanager
async def connection(
    port: int, room: int = 1 << 16
) -> AsyncGenerator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to a port of this machine, cut off at the end rather than wound up.

    room: bytes that are taken from the line before they are asked for.
    """
    line = socket.socket()
    line.setblocking(False)
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)  # the system's own store of bytes
    try:
        await asyncio.get_running_loop().sock_connect(line, ("127.0.0.1", port))
    except BaseException:
        line.close()
        raise
    reader, writer = await asyncio.open_connection(sock=line, limit=room)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def call(port: int, request: bytes) -> Answer:
    """Sends a request and takes all of the answer. Raises OSError where the server is not there."""
    async with connection(port) as (reader, writer):
        writer.write(request)
        await writer.drain()
        return parsed(await reader.read(-1))
