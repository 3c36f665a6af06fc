"""Errors as OpenAI writes them: which status, and what the body says."""

import logging
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ..errors import (
    GriffinError,
    InputError,
    Overloaded,
    SessionError,
    SessionMissing,
    StateError,
    TokenizerError,
)
from .bridge import Cancelled

LOG = logging.getLogger("griffin_lm.server")
RETRY_SECONDS = "1"
STATUS: tuple[tuple[type[Exception], int, str], ...] = (
    (SessionMissing, 404, "not_found_error"),
    (SessionError, 409, "conflict_error"),
    (Overloaded, 429, "rate_limit_error"),
    (InputError, 400, "invalid_request_error"),
    (StateError, 400, "invalid_request_error"),
    (TokenizerError, 400, "invalid_request_error"),
)


def error_body(error: Exception) -> tuple[int, dict[str, Any]]:
    """(status, body) of an error; what is none of the client's doing is logged and not told."""
    if isinstance(error, HTTPException):
        return error.status_code, _body(str(error.detail), "invalid_request_error")
    for kind, status, name in STATUS:
        if isinstance(error, kind):
            return status, _body(str(error), name)
    LOG.error("a request failed", exc_info=error)
    return 500, _body("the server failed; its log says more", "server_error")


def _body(message: str, kind: str, param: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": None}}


def add_handlers(app: FastAPI) -> None:
    """Has every error answered in this form."""

    async def ours(request: Request, error: Exception) -> Response:
        status, body = error_body(error)
        headers = {"retry-after": RETRY_SECONDS} if status == 429 else None
        return JSONResponse(body, status, headers)

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        # where a field may be of several kinds there is an error for each: the one that fits
        # furthest is what was meant
        first = max(error.errors(), key=lambda each: len(each["loc"]))
        where = ".".join(str(part) for part in first["loc"] if part != "body")
        message = f"{where}: {first['msg']}" if where else str(first["msg"])
        return JSONResponse(_body(message, "invalid_request_error", where or None), 400)

    async def gone(request: Request, error: Exception) -> Response:
        return Response(status_code=499)

    app.add_exception_handler(GriffinError, ours)
    app.add_exception_handler(HTTPException, ours)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(Cancelled, gone)
    app.add_exception_handler(Exception, ours)
