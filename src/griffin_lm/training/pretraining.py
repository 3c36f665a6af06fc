"""A run from scratch: a recipe's config and a data folder become a model, a feed and a trainer."""

from pathlib import Path

import torch

from ..errors import ConfigError
from ..models.griffin import build
from .batch import World
from .config import TrainConfig
from .optim import slow_channels
from .trainer import Trainer


def pretrain(config: TrainConfig, data: Path, out: Path, resume: bool, device: str = "auto") -> int:
    """Trains to the end of the config's budget; `out` keeps tokenizer, log and checkpoints.

    Returns 0, or 128 + a signal's number, as `Trainer.run`. Raises ConfigError for a recipe
    without a feed, DataError for data that its feed cannot use, TrainingError for a run that must
    not go on.
    """
    return open_run(config, data, out, device).run(resume)


def open_run(config: TrainConfig, data: Path, out: Path, device: str = "auto") -> Trainer:
    """The trainer before its first step, with random weights by the config's seed."""
    if config.feed is None:
        raise ConfigError("this recipe names no feed, so there is nothing to train on: set feed=")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    world = World(device=torch.device(device))
    feed = config.feed.open(config, data, out, world)
    model = build(config.model_config(), seed=config.seed)
    slow_channels(model, config)
    return Trainer(model, feed, config, out, world)
