"""The application: all routes, behind the door."""

import contextlib
from collections.abc import AsyncGenerator
from typing import Any

from fastapi import FastAPI
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from .. import __version__
from . import chat, completions, page, responses, session_routes
from .door import Door
from .errors import add_handlers
from .service import Service
from .settings import MIB


def create_app(service: Service) -> ASGIApp:
    """The ASGI application of a service; its lifespan starts and stops the engine's thread."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        service.start()
        try:
            yield
        finally:
            service.stop()

    app = FastAPI(
        title="griffin-lm", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None
    )
    for module in (completions, chat, responses, session_routes):
        app.include_router(module.router(service))
    app.include_router(page.router())
    _plain_routes(app, service)
    add_handlers(app)
    most = 2 * service.lm.model.empty_state(1).nbytes + MIB
    return Door(app, service.settings, service.metrics, most)


def _plain_routes(app: FastAPI, service: Service) -> None:
    model: dict[str, Any] = {
        "id": service.name,
        "object": "model",
        "created": service.created,
        "owned_by": "griffin-lm",
    }

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        """The model that is served."""
        return {"object": "list", "data": [model]}

    @app.get("/v1/models/{name:path}")
    async def model_named(name: str) -> Response:
        """The model of this name."""
        if name == service.name:
            return JSONResponse(model)
        message = f"there is no model {name!r:.80}"
        error = {"message": message, "type": "not_found_error", "param": None, "code": None}
        return JSONResponse({"error": error}, 404)

    @app.get("/health")
    async def health() -> Response:
        """Whether the server lives: its engine runs."""
        alive = service.thread.alive
        return JSONResponse({"status": "ok" if alive else "dead"}, 200 if alive else 503)

    @app.get("/ready")
    async def ready() -> Response:
        """Whether it takes requests."""
        ready = service.ready
        return JSONResponse({"status": "ready" if ready else "closing"}, 200 if ready else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        """Figures in Prometheus's text format."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")

    _ = (models, model_named, health, ready, metrics)
