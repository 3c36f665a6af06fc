"""The configuration of a model: frozen, complete, to and from a plain dict."""

from dataclasses import MISSING, dataclass, fields
from typing import ClassVar

from ..errors import ConfigError
from ..mixers import MIXERS, MixerConfig
from ..mixers.base import checked_fields, require
from ..shapes import JSON


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A residual stack: layer i mixes by pattern[i % len(pattern)], then runs the MLP.

    vocab, width: of the embedding, which is also the head. mlp_width: of each of the MLP's two
    branches. logit_cap: logits become cap * tanh(logits / cap); 0 leaves them. scale_embeddings:
    multiply embeddings by sqrt(width). mlp_init: variance of the MLP's inputs 1 / "width" (paper,
    DeepMind's torch) or half of it, "doubled" (its JAX).
    """

    only_initial: ClassVar[frozenset[str]] = frozenset({"mlp_init"})
    vocab: int
    width: int
    mlp_width: int
    layers: int
    pattern: tuple[MixerConfig, ...]
    norm_eps: float = 1e-6
    logit_cap: float = 0.0
    scale_embeddings: bool = False
    mlp_init: str = "width"

    def __post_init__(self) -> None:
        for name in ("vocab", "width", "mlp_width", "layers"):
            require(getattr(self, name) > 0, f"config.{name} must be positive")
        require(len(self.pattern) > 0, "config.pattern names no mixer")
        require(self.norm_eps > 0, f"config.norm_eps must be positive, not {self.norm_eps}")
        require(self.logit_cap >= 0, f"config.logit_cap must be 0 or more, not {self.logit_cap}")
        require(
            self.mlp_init in ("width", "doubled"),
            f'config.mlp_init must be "width" or "doubled", not {self.mlp_init!r}',
        )

    def mixer(self, layer: int) -> MixerConfig:
        """The settings of the mixer in this layer."""
        return self.pattern[layer % len(self.pattern)]

    def to_dict(self) -> JSON:
        """Plain values only, for JSON."""
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        return plain | {"pattern": [mixer.to_dict() for mixer in self.pattern]}

    def identity(self) -> JSON:
        """to_dict without what only shapes random weights: the same whatever format it came in."""
        plain = {k: v for k, v in self.to_dict().items() if k not in self.only_initial}
        return plain | {
            "pattern": [
                {k: v for k, v in mixer.to_dict().items() if k not in mixer.only_initial}
                for mixer in self.pattern
            ]
        }

    @classmethod
    def from_dict(cls, settings: JSON) -> "ModelConfig":
        """The inverse of to_dict; whatever is unknown, missing or mistyped is refused by name."""
        known = {field.name: field for field in fields(cls)}
        pattern = settings.get("pattern")
        if not isinstance(pattern, list | tuple):
            raise ConfigError("config.pattern must be a list of mixers, each with a kind")
        mixers: list[MixerConfig] = []
        for row in pattern:
            kind = row.get("kind") if isinstance(row, dict) else None
            if not isinstance(kind, str) or kind not in MIXERS:
                raise ConfigError(
                    f"config.pattern: unknown mixer {row!r:.60}; known: {list(MIXERS)}"
                )
            mixers.append(MIXERS[kind].from_dict(row))
        given: JSON = {**settings, "pattern": tuple(mixers)}
        required = {name for name, field in known.items() if field.default is MISSING}
        return cls(**checked_fields("config", given, known, required))
