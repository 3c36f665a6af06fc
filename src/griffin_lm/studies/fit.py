"""Training one architecture on one feed, as every study does it: the trainer's steps, no folder."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import TrainingError
from ..models import Griffin, ModelConfig
from ..models.griffin import build
from ..training.batch import Batch, World
from ..training.config import TrainConfig
from ..training.trainer import Trainer
from .study import Place

Draw = Callable[[np.random.Generator, int], Batch]
"""(random numbers of this step, the step) to a batch."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a model is trained: steps of `rows` rows of `length` tokens; peak rate by architecture.

    decay: the last share of the steps, in which the rate falls linearly to a hundredth.
    """

    steps: int
    rows: int
    length: int
    warmup: int = 50
    decay: float = 0.5

    @property
    def tokens(self) -> int:
        """Tokens read in all."""
        return self.steps * self.rows * self.length


class StepFeed:
    """Batches that are a function of seed and step alone: every architecture gets the same."""

    def __init__(self, draw: Draw, seed: int) -> None:
        self.draw, self.seed, self.step = draw, seed, 0

    def take(self, share: float) -> Batch:
        """The next batch."""
        batch = self.draw(np.random.default_rng([self.seed, self.step]), self.step)
        self.step += 1
        return batch

    def observe(self, batch: Batch, loss: Tensor, right: Tensor) -> str | None:
        """Nothing: the order does not depend on how it goes."""
        return None

    def to_dict(self) -> dict[str, Any]:
        """The step."""
        return {"step": self.step}

    def restore(self, saved: dict[str, Any]) -> None:
        """The inverse of to_dict."""
        self.step = saved["step"]


def batch_of(tokens: np.ndarray, targets: np.ndarray, weight: np.ndarray | None = None) -> Batch:
    """Rows (B, T) that each begin a document; weight None: every token counts."""
    starts = torch.zeros(tokens.shape, dtype=torch.bool)
    starts[:, 0] = True
    counted = np.ones(tokens.shape) if weight is None else weight
    return Batch(
        tokens=torch.from_numpy(tokens.astype(np.int64)),
        starts=starts,
        valid=torch.ones_like(starts),
        targets=torch.from_numpy(targets.astype(np.int64)),
        weight=torch.from_numpy(counted.astype(np.float32)),
    )


def trainer_for(
    config: ModelConfig, draw: Draw, recipe: Recipe, rate: float, seed: int, place: Place
) -> Trainer:
    """A trainer before its first step; its weights are drawn by the seed, as its batches are."""
    settings = TrainConfig(
        model=config,
        seed=seed,
        rows=recipe.rows,
        length=recipe.length,
        steps=recipe.steps,
        peak_rate=rate,
        last_rate=rate / 100,
        warmup_steps=min(recipe.warmup, recipe.steps // 4),
        decay_share=recipe.decay,
        bf16=place.bf16,
        compile=False,  # compiling takes longer than most cells
    )
    model = build(config, seed=seed, device=place.device)
    # the folder is for checkpoints, which nobody asks for
    return Trainer(
        model, StepFeed(draw, seed), settings, Path("unused"), World(device=place.device)
    )


def fit(
    trainer: Trainer,
    steps: int,
    every: int = 0,
    look: Callable[[Griffin, int], bool] | None = None,
) -> dict[str, Any]:
    """Takes steps up to `steps` in all: {"steps", "loss", "seconds", "tokens_per_s", "products"}.

    look: called after every `every` steps with the model and the step; True ends it. loss: the mean
    of the last tenth. Raises TrainingError for a loss that is not finite.
    """
    losses: list[float] = []
    tokens, seconds = trainer.tokens, trainer.seconds
    began = time.perf_counter()
    while trainer.steps < steps:
        figures = trainer.step()
        losses.append(figures.loss)
        if look is not None and every and trainer.steps % every == 0:
            trainer.model.eval()
            with torch.inference_mode():
                ended = look(trainer.model, trainer.steps)
            trainer.model.train()
            if ended:
                break
    last = losses[-max(1, len(losses) // 10) :]
    if not losses or not math.isfinite(sum(last)):
        raise TrainingError(f"no finite loss after step {trainer.steps}")
    took = trainer.seconds - seconds
    return {
        "steps": trainer.steps,
        "loss": round(sum(last) / len(last), 5),
        "seconds": round(time.perf_counter() - began, 1),
        "tokens_per_s": round((trainer.tokens - tokens) / max(took, 1e-9)),
        "products": "bfloat16" if trainer.config.bf16 else "float32",
    }
