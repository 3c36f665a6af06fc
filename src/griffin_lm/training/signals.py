"""SIGTERM and Ctrl-C, noted until a step is done."""

import signal
import threading
from types import FrameType
from typing import Any


class Signals:
    """While entered, SIGTERM and the first Ctrl-C are noted in `seen`, not acted upon.

    A second Ctrl-C interrupts as usual; not if `passed_on`: torchrun hands its processes what the
    terminal has sent them already. Outside of the main thread nothing is changed, since
    Python takes signals there only.
    """

    def __init__(self, passed_on: bool = False) -> None:
        self.seen, self.passed_on = 0, passed_on
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Signals":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, _: FrameType | None) -> None:
        self.seen = number
        if not self.passed_on:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
