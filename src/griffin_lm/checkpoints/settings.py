"""Settings that a caller changes by name."""

from dataclasses import fields

from ..errors import ConfigError
from ..models import ModelConfig
from ..shapes import JSON


def overrule(config: ModelConfig, given: JSON) -> ModelConfig:
    """The config with settings of its own or of its mixers changed by name.

    A mixer's setting reaches every mixer that has it. Raises ConfigError for a name nobody has.
    """
    ours = {field.name for field in fields(config)}
    for name, value in given.items():
        holders = [m for m in config.pattern if name in {f.name for f in fields(m)}]
        if name in ours:
            plain = config.to_dict() | {name: value}
        elif holders:
            rows = [m.to_dict() | ({name: value} if m in holders else {}) for m in config.pattern]
            plain = config.to_dict() | {"pattern": rows}
        else:
            raise ConfigError(f"config has no setting {name!r}, nor has any of its mixers")
        config = ModelConfig.from_dict(plain)
    return config
