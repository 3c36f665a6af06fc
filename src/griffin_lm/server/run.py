"""Serving: uvicorn around the application, until it is told to stop."""

import logging
import signal
import sys
from types import FrameType

import uvicorn

from ..errors import ConfigError
from ..inference import LanguageModel
from .app import create_app
from .service import Service
from .settings import Settings


class Server(uvicorn.Server):
    """uvicorn's server. On SIGTERM or Ctrl-C it takes no more connections, gives what is under way
    `drain` seconds, and ends.
    """

    def __init__(self, service: Service) -> None:
        settings = service.settings
        super().__init__(
            uvicorn.Config(
                create_app(service),
                host=settings.host,
                port=settings.port,
                log_level="warning",
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=round(settings.drain),
                timeout_keep_alive=30,
                lifespan="on",
                # what the tests run with, also where another package has brought uvloop along
                loop="asyncio",
                http="h11",
            )
        )
        self.service = service
        self.interrupted = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Takes no more requests from here on; also those on open connections are refused.

        The second Ctrl-C does not wait. Unlike uvicorn's own, it does not end the process by the
        signal once all is done: a server that was asked to stop, and did, has not failed.
        """
        self.service.engine.close()
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True
        self.interrupted = sig == signal.SIGINT


def serve(lm: LanguageModel, name: str, settings: Settings) -> bool:
    """Serves a model until SIGTERM or Ctrl-C; whether it was Ctrl-C.

    A line of JSON a request goes to standard error.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log = logging.getLogger("griffin_lm.server")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    server = Server(Service(lm, name, settings))
    server.run()
    if not server.started:
        raise ConfigError(f"could not listen on {settings.host}:{settings.port}; is it in use?")
    return server.interrupted
