"""Stop strings, found in text that comes in pieces of any size."""

from collections.abc import Sequence

from ..errors import InputError


def stop_strings(stop: str | Sequence[str]) -> tuple[str, ...]:
    """The stop strings of a call; one may be given bare. Raises `InputError` for an empty one."""
    stops = (stop,) if isinstance(stop, str) else tuple(stop)
    if any(not string for string in stops):
        raise InputError("a stop string is empty, which would stop before anything; leave it out")
    return stops


class StopWatch:
    """One row's text, of which the end is held back while it may yet become a stop string.

    The match that is complete first wins (of two that end together, the longer), so the result
    does not depend on how the text was cut into pieces.
    """

    text: str  # all text so far; ends before the match once there is one
    shown: int  # characters of it that can be shown: no later match can begin among them
    stopped: bool

    def __init__(self, stops: Sequence[str]) -> None:
        self.stops = tuple(stops)
        self.text = ""
        self.shown = 0
        self.stopped = False

    def add(self, piece: str) -> str:
        """Takes the next piece of text; returns what may be shown by now."""
        if self.stopped or not piece:
            return ""
        self.text += piece
        found = [
            (start + len(stop), start)
            for stop in self.stops
            if (start := self.text.find(stop, self.shown)) >= 0
        ]
        if found:
            self.stopped = True
            self.text = self.text[: min(found)[1]]
            return self._show_until(len(self.text))
        return self._show_until(self._first_possible_start())

    def finish(self) -> str:
        """No more text will come: what was held back can be shown."""
        return self._show_until(len(self.text))

    def _first_possible_start(self) -> int:
        """Where the longest ending begins that is the beginning of a stop string."""
        longest = max(map(len, self.stops), default=1) - 1
        for start in range(max(self.shown, len(self.text) - longest), len(self.text)):
            if any(stop.startswith(self.text[start:]) for stop in self.stops):
                return start
        return len(self.text)

    def _show_until(self, end: int) -> str:
        piece, self.shown = self.text[self.shown : end], end
        return piece
