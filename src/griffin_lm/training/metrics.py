"""Figures of a run: a CSV always, TensorBoard and W&B where installed, a line of progress."""

import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from ..inference.loading import computes_in_bfloat16
from .batch import Feed, Reporting, World
from .config import TrainConfig
from .loggers import Logger, open_loggers
from .speed import matmul_parameters, matrix_rate


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
    """Means over `log_every` steps: a line to the terminal, a row to every logger (rank 0 only).

    fraction_of_matrix_rate: 6 * parameters in matrix products (the head's among them) * tokens/s,
    over the rate of a large matrix product, which is measured at the start for `rate_seconds`.
    """

    def __init__(
        self, config: TrainConfig, model: nn.Module, out: Path, world: World, steps: int
    ) -> None:
        self.config, self.out, self.world, self.begun_at = config, out, world, steps
        self.flops_per_token = 6 * matmul_parameters(model)
        self.matrix_rate = 0.0  # FLOP/s of all processes together; 0: not measured
        self.waiting: list[StepFigures] = []
        self.loggers: list[Logger] = []
        self.since = 0.0

    def __enter__(self) -> "Metrics":
        if self.config.rate_seconds > 0:  # on every rank, since they may share one processor
            device = self.world.device
            # where bf16 is multiplied by conversion, one square product may take a minute
            bf16 = self.config.bf16 and computes_in_bfloat16(device)
            rate = matrix_rate(device, bf16, self.config.rate_seconds)
            self.matrix_rate = rate * self.world.size
        if self.world.rank == 0:
            self.loggers = open_loggers(self.out, self.begun_at)
        self.since = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        for logger in list(self.loggers):
            self._guard(logger, logger.close)

    def add(self, figures: StepFigures, share: float, feed: Feed) -> None:
        """One step's figures; share: how much of the run is done."""
        self.waiting.append(figures)
        if len(self.waiting) < self.config.log_every:
            return
        waiting, self.waiting = self.waiting, []
        now, then = time.perf_counter(), self.since
        self.since = now
        if self.world.rank != 0:
            return
        columns = self._columns(waiting, now - then)
        print(self._line(figures, columns, share), flush=True)
        if isinstance(feed, Reporting):
            columns |= {name: round(value, 4) for name, value in feed.figures().items()}
        for logger in list(self.loggers):
            self._guard(logger, lambda logger=logger: logger.write(figures.steps, columns))

    def _columns(self, waiting: list[StepFigures], took: float) -> dict[str, float | int]:
        last, count = waiting[-1], len(waiting)
        rate = sum(row.step_tokens for row in waiting) / max(1e-9, took)
        fraction = rate * self.flops_per_token / self.matrix_rate if self.matrix_rate else 0.0
        return {
            "step": last.steps,
            "tokens": last.tokens,
            "seconds": round(last.seconds, 1),
            "loss": round(sum(row.loss for row in waiting) / count, 5),
            "norm": round(sum(row.norm for row in waiting) / count, 4),
            "rate": last.rate,
            "tokens_per_s": round(rate),
            "fraction_of_matrix_rate": round(fraction, 4),
        }

    def _line(self, figures: StepFigures, columns: dict[str, float | int], share: float) -> str:
        whole = f" of {self.config.tokens:,}" if not self.config.steps else ""
        left = figures.seconds * (1 - share) / max(1e-9, share)
        fraction = columns["fraction_of_matrix_rate"]
        return (
            f"step {figures.steps:,} | {figures.tokens:,}{whole} tokens | "
            f"loss {columns['loss']:.3f} | {columns['tokens_per_s']:,} tokens/s"
            + (f", {fraction:.2f} of the matrix rate" if self.matrix_rate else "")
            + f" | {_duration(max(0.0, left))} left"
        )

    def _guard(self, logger: Logger, call: Any) -> None:
        """A logger that fails is dropped with a word; training goes on."""
        try:
            call()
        except Exception as error:  # whatever a foreign logger raises
            self.loggers.remove(logger)
            print(f"{logger.name} failed and is left out from here on ({error})", file=sys.stderr)


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
