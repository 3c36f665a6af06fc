"""A run from scratch: a recipe's config and a data folder become a model, a feed and a trainer."""

from dataclasses import replace
from pathlib import Path

import torch

from ..errors import ConfigError
from ..inference.loading import computes_in_bfloat16
from ..models.griffin import build
from .batch import World
from .config import TrainConfig
from .distributed import joined
from .optim import slow_channels
from .trainer import Trainer


def pretrain(config: TrainConfig, data: Path, out: Path, resume: bool, device: str = "auto") -> int:
    """Trains to the end of the config's budget; `out` keeps tokenizer, log and checkpoints.

    Under torchrun, one of its processes; `out` must then be a folder that all of them see.
    Returns 0, or 128 + a signal's number, as `Trainer.run`. Raises ConfigError for a recipe
    without a feed, DataError for data that its feed cannot use, TrainingError for a run that must
    not go on.
    """
    with joined(device) as world:
        return open_run(config, data, out, world).run(resume)


def open_run(config: TrainConfig, data: Path, out: Path, device: str | World = "auto") -> Trainer:
    """The trainer before its first step, with random weights by the config's seed.

    device: or this process's place among those that `joined` brought together. bf16 is fp32 where
    the device has none of its own: converted products are many times slower.
    """
    if config.feed is None:
        raise ConfigError("this recipe names no feed, so there is nothing to train on: set feed=")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    world = device if isinstance(device, World) else World(device=torch.device(device))
    feed = config.feed.open(config, data, out, world)
    config = replace(config, bf16=config.bf16 and computes_in_bfloat16(world.device))
    model = build(config.model_config(), seed=config.seed)
    slow_channels(model, config)
    return Trainer(model, feed, config, out, world)
