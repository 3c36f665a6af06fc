"""A thread that steps an engine, and calls that wait for it."""

import logging
import queue
import threading
import time

from .engine import Engine
from .request import Event, Failed, Finished, Request

LOG = logging.getLogger("griffin_lm.inference")


class EngineThread:
    """Steps an engine until it is stopped; a context manager."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def __enter__(self) -> "EngineThread":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._thread.is_alive()

    def serve(self, request: Request) -> Finished:
        """Submits a request and waits for its end. Raises what it failed with."""
        events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.engine.submit(request, events.put)
        while True:
            event = events.get()
            if isinstance(event, Finished):
                return event
            if isinstance(event, Failed):
                raise event.error

    def stop(self, drain: float = 0.0) -> None:
        """Takes no more requests, gives those under way `drain` seconds, and ends the thread."""
        self.engine.close()
        until = time.monotonic() + drain
        while self.engine.busy and self.alive and time.monotonic() < until:
            time.sleep(0.01)
        self._stopped = True
        self._thread.join()

    def _step(self) -> None:
        try:
            self.engine.step()
        except Exception as error:  # a fault of ours: it must not leave everybody waiting for ever
            LOG.exception("the engine failed; its requests are ended")
            self.engine.fail_all(error)

    def _run(self) -> None:
        while not self._stopped:
            if self.engine.busy:
                self._step()
            elif self.engine.closing:
                time.sleep(0.01)
            else:
                self.engine.wait(0.5)
        self.engine.abandon()
