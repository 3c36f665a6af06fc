"""config.json as we write it beside DeepMind's weights, and which models their package can run."""

from collections.abc import Iterable
from typing import Any

from ...errors import CheckpointMismatch
from ...mixers import RGLRU, LocalAttention, MixerConfig
from ...models import ModelConfig

_KINDS: tuple[type[MixerConfig], ...] = (RGLRU, LocalAttention)
# constants of their code, which has no setting for them
_FIXED = {
    "conv_width": 4,
    "kv_heads": 1,
    "rope_base": 10_000.0,
    "rope_fraction": 0.5,
    "norm_eps": 1e-6,
}
_ONE = ("width", "heads", "head_dim", "window")  # one number for all mixers of a kind


def speaks(config: ModelConfig) -> bool:
    """Models of these two mixers; which of their settings can be said, `check` finds out."""
    return all(type(mixer) in _KINDS for mixer in config.pattern)


def check(config: ModelConfig, name: str) -> None:
    """Refuses a model that DeepMind's package could not run from the format `name`.

    Raises CheckpointMismatch naming the setting.
    """
    for owner in (config, *config.pattern):
        plain = owner.to_dict()
        for setting in owner.later & set(plain):
            raise _cannot(name, f"has no word for {setting}={plain[setting]!r}")
        for setting, value in _FIXED.items():
            if plain.get(setting, value) != value:
                raise _cannot(name, f"has {setting}={value}, and this model {plain[setting]}")
    for kind in _KINDS:
        own = [mixer.to_dict() for mixer in config.pattern if type(mixer) is kind]
        for setting in _ONE:
            _one(name, f"{kind.kind}.{setting}", [row[setting] for row in own if setting in row])
    heads = [m.heads for m in config.pattern if isinstance(m, RGLRU | LocalAttention)]
    _one(name, "number of heads and gate blocks", heads)
    for mixer in config.pattern:
        if isinstance(mixer, LocalAttention) and mixer.heads * mixer.head_dim != config.width:
            raise _cannot(
                name,
                f"has heads that fill the width, and this model {mixer.heads} heads of "
                f"{mixer.head_dim} in a width of {config.width}",
            )


def _one(name: str, setting: str, values: Iterable[Any]) -> None:
    if len(found := sorted(set(values))) > 1:
        raise _cannot(name, f"has one {setting} for all layers, and this model {found}")


def _cannot(name: str, why: str) -> CheckpointMismatch:
    return CheckpointMismatch(f'the format "{name}" {why}; save it with format="griffin"')
