"""Before any route: keys, hosts, sizes of bodies; after it: figures and a line in the log.

A plain ASGI layer, so that no route, known or not, can be reached around it.
"""

import hashlib
import hmac
import json
import logging
import secrets
import time
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .metrics import Metrics
from .page import FILES as PAGE
from .settings import Settings, is_loopback

LOG = logging.getLogger("griffin_lm.server")
OPEN = frozenset({*PAGE, "/health", "/ready"})
"""Routes without a key: they say whether the server lives, and the page asks for the key itself."""


class Door:
    """The ASGI application around the application."""

    def __init__(
        self, app: ASGIApp, settings: Settings, metrics: Metrics, most_upload: int
    ) -> None:
        self.app, self.settings, self.metrics = app, settings, metrics
        self.most_upload = most_upload
        self.keys = [key.encode() for key in settings.api_keys]
        self.local = is_loopback(settings.host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        visit = _Visit(scope, send)
        headers = Headers(scope=scope)
        refusal = self._refusal(scope, headers)
        try:
            if refusal is not None:
                await visit.refuse(*refusal)
            else:
                limit = self._limit(scope)
                await self.app(scope, _limited(receive, limit), visit.send)
        finally:
            self._note(scope, visit)

    def _refusal(self, scope: Scope, headers: Headers) -> tuple[int, str] | None:
        """(status, reason) for what must not come in."""
        host = headers.get("host", "")
        name = urlsplit(f"//{host}").hostname or ""
        if self.local and not self.keys and not is_loopback(name):
            # a page elsewhere whose name was made to point here
            return 421, "this server answers to localhost only"
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return 403, "requests from pages of other origins are not answered"
        owner = self._owner(headers)
        if owner is None and scope["path"] not in OPEN:
            return 401, "a valid key is missing: send the header 'Authorization: Bearer KEY'"
        scope.setdefault("state", {})["owner"] = owner or ""
        length = headers.get("content-length")
        limit = self._limit(scope)
        if length is not None and limit is not None and length.isdigit() and int(length) > limit:
            return 413, f"the body has {length} bytes; at most {limit} are taken"
        return None

    def _owner(self, headers: Headers) -> str | None:
        """Whose request it is; None: nobody's. Every key is compared, in constant time."""
        if not self.keys:
            return ""
        scheme, _, given = headers.get("authorization", "").partition(" ")
        found: bytes | None = None
        for key in self.keys:
            if hmac.compare_digest(key, given.strip().encode()):
                found = key
        return found.decode() if found is not None and scheme.lower() == "bearer" else None

    def _limit(self, scope: Scope) -> int | None:
        path, method = scope["path"], scope["method"]
        if path.startswith("/v1/sessions/") and method == "POST" and path.endswith("/append"):
            return None  # read as it comes, at constant memory
        if path.startswith("/v1/sessions/") and method == "PUT":
            return self.most_upload
        return self.settings.max_body

    def _note(self, scope: Scope, visit: "_Visit") -> None:
        route = getattr(scope.get("route"), "path", "none")
        seconds = time.monotonic() - visit.at
        self.metrics.requests.labels(scope["method"], route, str(visit.status)).inc()
        self.metrics.seconds.labels(route).observe(seconds)
        owner = scope.get("state", {}).get("owner", "")
        entry = {
            "time": round(time.time(), 3),
            "request": visit.id,
            "method": scope["method"],
            "route": route,
            "status": visit.status,
            "ms": round(seconds * 1000, 1),
            "key": hashlib.sha256(owner.encode()).hexdigest()[:8] if owner else "",
        }
        LOG.info(json.dumps(entry))


class _Visit:
    """One request on its way through the door."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._send = send
        self.at, self.id = time.monotonic(), f"req_{secrets.token_hex(8)}"
        self.status = 0

    async def send(self, message: Message) -> None:
        """Passes a message on, with the request's id."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [
                *message.get("headers", ()),
                (b"x-request-id", self.id.encode()),
                (b"x-content-type-options", b"nosniff"),
            ]
        await self._send(message)

    async def refuse(self, status: int, reason: str) -> None:
        """Answers with an error in OpenAI's form."""
        kind = "authentication_error" if status == 401 else "invalid_request_error"
        error = {"message": reason, "type": kind, "param": None, "code": None}
        headers = [(b"content-type", b"application/json")]
        if status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        body = json.dumps({"error": error}).encode()
        await self.send({"type": "http.response.body", "body": body})


def _limited(receive: Receive, limit: int | None) -> Receive:
    taken = 0

    async def limited() -> Message:
        nonlocal taken
        message = await receive()
        if message["type"] == "http.request":
            taken += len(message.get("body", b""))
            if limit is not None and taken > limit:
                raise HTTPException(413, f"the body is too large; at most {limit} bytes are taken")
        return message

    return limited
