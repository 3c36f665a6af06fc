"""What a training run is told: a frozen dataclass that a recipe returns and `--set` changes."""

import importlib.util
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from ..errors import ConfigError
from ..models.config import ModelConfig
from ..models.griffin import resolve_config
from .batch import Feed, World
from .blocks import RECOMPUTE


@runtime_checkable
class FeedSettings(Protocol):
    """A recipe's choice of what is trained on: a frozen dataclass that can open its feed."""

    def open(self, config: "TrainConfig", data: Path, out: Path, world: World) -> Feed:
        """The feed of one rank, at its beginning.

        data: of `--data`; out: the run's folder, where a tokenizer and caches may be kept. Raises
        DataError for data that cannot be used.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that decides a run, besides its data folder.

    Length: `tokens` to train on, or `steps` where that is given; `seconds` > 0 ends it by the clock
    if that comes first (the learning rate follows whichever is further on; then the run is not
    repeatable to the bit).
    """

    model: ModelConfig | str = "fledgling"  # or a preset's name
    feed: FeedSettings | None = None  # what is trained on; its fields are reached by --set too
    seed: int = 0

    rows: int = 16  # rows of a micro-batch (B), on each process
    length: int = 256  # tokens per row (T)
    accumulate: int = 1  # micro-batches per step
    segment: int = 0  # gradients stop at every so many tokens of a row, states go on; 0: never
    tokens: int = 40_000_000
    steps: int = 0
    seconds: float = 0.0

    schedule: str = "wsd"  # "wsd", "cosine" or "linear": see schedule.py
    peak_rate: float = 3e-3
    last_rate: float = 1e-4
    warmup_steps: int = 100
    decay_share: float = 0.35  # wsd: the last share of the run, in which the rate falls linearly
    decay_from: float = -1.0  # wsd: start the decay at this share instead; -1: 1 - decay_share
    beta1: float = 0.9
    beta2: float = 0.98
    weight_decay: float = 0.05
    clip: float = 1.0  # of the gradient's norm; 0: not clipped
    # the loss of a step is sum(weight * loss) over the sum of "weights", or over the number of
    # "batches" for feeds whose weights are shares of the loss already
    loss_over: str = "weights"

    slow_share: float = 0.0  # of the recurrent channels that hold by default
    slow_softplus: float = 0.02  # their softplus(Lambda)
    slow_half_life: tuple[float, float] = (3.5, 5.5)  # powers of ten, in tokens
    slow_input_bias: float = 0.0  # of their input gate

    bf16: bool = True  # matrix products under autocast; weights and recurrence stay fp32
    compile: bool = True  # torch.compile of each block
    recompute: str = "none"  # going backward: "none", "selective" or "full"; see blocks.py
    checkpoint_blocks: bool = False  # the former name of recompute="full"
    loss_chunk: int = 0  # tokens whose logits are in memory at once; 0: chosen by the vocabulary
    save_every: float = 120.0  # seconds
    save_steps: int = 0  # also every so many steps; 0: not
    keep: int = 2  # checkpoints
    log_every: int = 50  # steps
    rate_seconds: float = 1.0  # spent on measuring the matrix rate at the start; 0: not measured

    def __post_init__(self) -> None:
        for name in ("rows", "length", "accumulate", "keep", "log_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be 1 or more, not {getattr(self, name)}")
        for name, known in (
            ("schedule", ("wsd", "cosine", "linear")),
            ("loss_over", ("weights", "batches")),
            ("recompute", RECOMPUTE),
        ):
            if getattr(self, name) not in known:
                raise ConfigError(f"{name} must be {' or '.join(known)}, not {getattr(self, name)}")

        if self.checkpoint_blocks and self.recompute == "selective":
            raise ConfigError("checkpoint_blocks=true means recompute=full: set one of the two")

    def recomputed(self) -> str:
        """What is computed again going backward, whichever of its two names was set."""
        return "full" if self.checkpoint_blocks else self.recompute

    def model_config(self) -> ModelConfig:
        """The model's configuration, a preset's name resolved."""
        return resolve_config(self.model)


def with_settings(config: TrainConfig, settings: Iterable[str]) -> TrainConfig:
    """The config after `key=value` settings, of its own fields or of its feed's.

    An unknown key lists the known ones. A name that both have is the config's; `feed.key` is
    always the feed's.
    """
    for setting in settings:
        key, equals, text = setting.partition("=")
        own = [field.name for field in fields(config) if field.name != "feed"]
        feed: Any = config.feed
        its = [field.name for field in fields(feed)] if is_dataclass(feed) else []
        if not equals or not (key in own or key.removeprefix("feed.") in its):
            known = ", ".join([*own, *(name for name in its if name not in own)])
            raise ConfigError(f"--set {setting!r}: wanted key=value, key one of {known}")
        if key in own:
            config = replace(config, **{key: _parsed(text, getattr(config, key), setting)})
        else:
            key = key.removeprefix("feed.")
            changed: Any = {key: _parsed(text, getattr(feed, key), setting)}
            config = replace(config, feed=type(feed)(**_values(feed) | changed))
    return config


def _values(settings: Any) -> dict[str, Any]:
    return {field.name: getattr(settings, field.name) for field in fields(settings)}


def _parsed(text: str, before: object, setting: str) -> object:
    """The value as the type that the field has already."""
    try:
        if isinstance(before, bool):
            return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        if isinstance(before, int):
            return int(float(text)) if "e" in text else int(text)
        if isinstance(before, float):
            return float(text)
        if isinstance(before, tuple):
            kind = float if before and isinstance(before[0], float) else str
            return tuple(kind(part) for part in text.split(",") if part)
    except (ValueError, KeyError) as error:
        raise ConfigError(
            f"--set {setting!r}: {text!r} is not a {type(before).__name__}"
        ) from error
    return text


def load_recipe(path: Path) -> TrainConfig:
    """The config that a recipe file's function `recipe()` returns."""
    if not path.is_file():
        raise ConfigError(f"no recipe {path}; recipes are Python files with a function recipe()")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path} is not a Python file; a recipe is one with a function recipe()")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    recipe: Callable[[], TrainConfig] | None = getattr(module, "recipe", None)
    config = recipe() if callable(recipe) else None
    if not isinstance(config, TrainConfig):
        raise ConfigError(f"{path} has no function recipe() that returns a TrainConfig")
    return config
