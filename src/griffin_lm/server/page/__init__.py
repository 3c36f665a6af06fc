"""The page at `/`: static files of HTML, CSS and JavaScript; no build step, no other host."""

from collections.abc import Callable
from pathlib import Path

from fastapi import APIRouter
from starlette.responses import FileResponse, Response

NAMES = ("page.css", "page.js", "calls.js", "plot.js", "icon.svg")
FILES = {"/": "index.html", **{f"/{name}": name for name in NAMES}}
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


def router() -> APIRouter:
    """The routes; they hold nothing secret, and the page asks for the key itself."""
    routes = APIRouter()
    for path, name in FILES.items():
        routes.add_api_route(path, _sender(name), include_in_schema=False)
    return routes


def _sender(name: str) -> Callable[[], Response]:
    file = Path(__file__).parent / name

    def send() -> Response:
        return FileResponse(file, headers=HEADERS)

    return send
