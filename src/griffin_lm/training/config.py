"""What a training run is told: a frozen dataclass that a recipe returns and `--set` changes."""

import importlib.util
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path

from ..errors import ConfigError
from ..models.config import ModelConfig
from ..models.griffin import resolve_config


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that decides a run, besides its data folder.

    Length: `tokens` to train on; `seconds` > 0 ends it by the clock if that comes first (the
    learning rate follows whichever is further on; then the run is not repeatable to the bit).
    """

    model: ModelConfig | str = "fledgling"  # or a preset's name
    seed: int = 0
    held_out: tuple[str, ...] = ()  # ids of books that are never trained on
    vocabulary_sample: int = 12_000_000  # characters of training text for the tokenizer

    rows: int = 16  # streams side by side (B)
    length: int = 256  # tokens per row and step; gradients stop at its borders (T)
    tokens: int = 40_000_000
    seconds: float = 0.0

    peak_rate: float = 3e-3
    last_rate: float = 1e-4
    warmup_steps: int = 100
    decay_share: float = 0.35  # the last share of the run, in which the rate falls linearly
    decay_from: float = -1.0  # start the decay at this share instead; -1: 1 - decay_share
    beta1: float = 0.9
    beta2: float = 0.98
    weight_decay: float = 0.05
    clip: float = 1.0

    prose_weight: float = 0.6  # of the loss on everything but answers, while recall is learned
    prose_weight_after: float = 1.0  # once the longest gap is `solved_gap`
    solved_gap: int = 32768
    answer_floor: int = 8  # answers are averaged over at least this many

    memo_fields: int = 3
    first_gap: int = 128
    last_gap: int = 32768
    passing: float = 0.87

    window_dropout: float = 0.6  # share of rows and steps with a short window
    window_dropout_last: float = 0.1  # to which it falls with the learning rate
    short_window: int = 16  # the short ones are drawn from 4 up to this

    slow_share: float = 0.35  # of the recurrent channels that hold by default
    slow_softplus: float = 0.02  # their softplus(Lambda)
    slow_half_life: tuple[float, float] = (3.5, 5.5)  # powers of ten, in tokens
    slow_input_bias: float = 0.0  # of their input gate

    bf16: bool = True  # matrix products under autocast; weights and recurrence stay fp32
    compile: bool = True  # torch.compile of each block
    save_every: float = 120.0  # seconds
    log_every: int = 50  # steps

    def model_config(self) -> ModelConfig:
        """The model's configuration, a preset's name resolved."""
        return resolve_config(self.model)


def with_settings(config: TrainConfig, settings: Iterable[str]) -> TrainConfig:
    """The config after `key=value` settings; an unknown key lists the known ones."""
    known = {field.name: field for field in fields(config)}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or key not in known:
            raise ConfigError(f"--set {setting!r}: wanted key=value, key one of {', '.join(known)}")
        config = replace(config, **{key: _parsed(text, getattr(config, key), setting)})
    return config


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
