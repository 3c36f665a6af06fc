"""Who is told about a download: its figures before it begins, its progress, and what is odd."""

import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

from .needs import Preflight, size


def _nothing(_: Preflight) -> None:
    pass


def _warn(text: str) -> None:
    warnings.warn(text, UserWarning, stacklevel=2)


class ProgressLine:
    """One line on standard error, if that is a terminal: bytes, rate, time left."""

    def __init__(self, what: str = "downloading") -> None:
        self.what = what
        self._begun: tuple[float, int] | None = None
        self._drawn = 0.0

    def __call__(self, done: int, total: int) -> None:
        """Draws at most ten times a second; the last call clears the line."""
        if not sys.stderr.isatty():
            return
        now = time.monotonic()
        if self._begun is None:
            self._begun = now, done
        if done >= total:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self._begun = None
        elif now - self._drawn >= 0.1:
            self._drawn = now
            print(f"\r{self.line(now, done, total)}\x1b[K", end="", file=sys.stderr, flush=True)

    def line(self, now: float, done: int, total: int) -> str:
        """What stands in it: the rate is that of this run."""
        at, before = self._begun or (now, done)
        rate = (done - before) / (now - at) if now > at else 0.0
        text = f"{self.what} {size(done)} of {size(total)}"
        if rate <= 0:
            return text
        left = int((total - done) / rate)
        clock = f"{left // 3600}:{left // 60 % 60:02}:{left % 60:02}"
        return f"{text}, {size(int(rate))}/s, {clock.removeprefix('0:')} left"


@dataclass(frozen=True)
class Watch:
    """plan: the figures, once, before a byte of the weights is fetched. progress: (bytes here,
    bytes in all) as they come. notice: a text about what is odd, each at most once a call.
    """

    plan: Callable[[Preflight], None] = _nothing
    progress: Callable[[int, int], None] = field(default_factory=ProgressLine)
    notice: Callable[[str], None] = _warn


def on_terminal() -> Watch:
    """As the command line has it: the figures and notices on standard error."""

    def say(text: str) -> None:
        print(f"griffin: {text}", file=sys.stderr)

    return Watch(plan=lambda plan: print("\n".join(plan.lines()), file=sys.stderr), notice=say)
