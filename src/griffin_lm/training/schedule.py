"""The learning rate over a run."""

import math

from .config import TrainConfig


def decay_start(config: TrainConfig) -> float:
    """The share of the run at which the learning rate begins to fall; 0 but for "wsd"."""
    if config.schedule != "wsd":
        return 0.0
    return config.decay_from if config.decay_from >= 0 else 1 - config.decay_share


def decay_progress(config: TrainConfig, share: float) -> float:
    """0 until the decay begins, 1 at the end; `share` of the run is done."""
    begin = decay_start(config)
    return min(1.0, max(0.0, (share - begin) / max(1e-9, 1 - begin)))


def learning_rate(config: TrainConfig, step: int, share: float) -> float:
    """From `peak_rate` to `last_rate`, after a linear warm-up over `warmup_steps`.

    "wsd" (warm-up, stable, decay): holds, and falls linearly over the last `decay_share`. "linear"
    falls all the time; "cosine" does so by half a cosine. step: counted from 0.
    """
    warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
    down = decay_progress(config, share)
    if config.schedule == "cosine":
        down = (1 - math.cos(math.pi * down)) / 2
    return warm * (config.peak_rate + (config.last_rate - config.peak_rate) * down)
