"""Figures of a run: one CSV always, TensorBoard and W&B where installed, a line of progress."""

import csv
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from .batch import Feed, Reporting, World
from .config import TrainConfig


class StepFigures(NamedTuple):
    """What one optimiser step came to.

    steps, tokens, seconds: of the whole run so far. loss: of the step. norm: the gradient's, before
    clipping. rate: the learning rate. step_tokens, step_seconds: of this step.
    """

    steps: int
    tokens: int
    seconds: float
    loss: float
    norm: float
    rate: float
    step_tokens: int
    step_seconds: float


class Metrics:
    """Means of the steps since the last line: to the terminal and to out/log.csv."""

    def __init__(
        self, config: TrainConfig, model: nn.Module, out: Path, world: World, steps: int
    ) -> None:
        self.config, self.path, self.world = config, out / "log.csv", world
        self.waiting: list[StepFigures] = []
        self.since = time.perf_counter()

    def __enter__(self) -> "Metrics":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def add(self, figures: StepFigures, share: float, feed: Feed) -> None:
        """One step's figures."""
        self.waiting.append(figures)
        if len(self.waiting) < self.config.log_every or self.world.rank != 0:
            return
        now, waiting = time.perf_counter(), self.waiting
        rate = sum(row.step_tokens for row in waiting) / max(1e-9, now - self.since)
        self.waiting, self.since = [], now
        mean = {
            name: sum(getattr(r, name) for r in waiting) / len(waiting) for name in ("loss", "norm")
        }
        left = figures.seconds * (1 - share) / max(1e-9, share)
        print(
            f"{figures.steps} {figures.tokens / 1e6:.2f}M loss {mean['loss']:.3f} | "
            f"{rate:,.0f} tokens/s, {left:.0f} s left",
            flush=True,
        )
        columns: dict[str, Any] = {
            "step": figures.steps,
            "tokens": figures.tokens,
            "seconds": round(figures.seconds, 1),
            **{name: round(value, 5) for name, value in mean.items()},
            "rate": figures.rate,
            "tokens_per_s": round(rate),
        }
        if isinstance(feed, Reporting):
            columns |= {name: round(value, 4) for name, value in feed.figures().items()}
        try:
            self._write(columns)
        except OSError as error:
            print(f"{self.path} could not be written ({error}); training goes on", file=sys.stderr)

    def _write(self, columns: dict[str, Any]) -> None:
        fresh = not self.path.exists()
        with self.path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(columns))
            if fresh:
                writer.writeheader()
            writer.writerow(columns)
