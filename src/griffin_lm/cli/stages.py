"""Progress of work with several stages: one line, for the stage that is under way."""

from .common import Meter


class Stages:
    """Called with (stage, done, in all); a stage's line goes when the next one begins."""

    def __init__(self, unit: str = "") -> None:
        self.unit = unit
        self.name: str | None = None
        self.meter: Meter | None = None

    def __call__(self, name: str, done: int, total: int) -> None:
        """Shows how far the stage is."""
        if name != self.name or self.meter is None:
            self.close()
            self.name, self.meter = name, Meter(name, self.unit)
        self.meter(done, total)

    def close(self) -> None:
        """Takes the line away."""
        if self.meter is not None:
            self.meter.__exit__()
