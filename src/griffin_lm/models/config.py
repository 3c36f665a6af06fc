"""The configuration of a model: frozen, complete, to and from a plain dict."""

from dataclasses import MISSING, dataclass, fields
from typing import ClassVar

from ..errors import ConfigError
from ..layers.mlp import GATES
from ..mixers import MIXERS, MixerConfig
from ..mixers.base import checked_fields, plain_settings, require
from ..shapes import JSON


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A residual stack: layer i mixes by pattern[i % len(pattern)], then runs the MLP.

    vocab, width: of the embedding, which is also the head unless `tied` is False. mlp_width: of
    each of the MLP's two branches. logit_cap: logits become cap * tanh(logits / cap); 0 leaves
    them. scale_embeddings: multiply embeddings by sqrt(width). mlp_init: variance of the MLP's
    inputs 1 / "width" (paper, DeepMind's torch) or half of it, "doubled" (its JAX).
    mlp: "geglu" (Griffin, Gemma), "swiglu" (Llama), or "none", which wants an mlp_width of 0 and
    leaves out the MLP and its norm (Mamba). mlp_bias: its linear maps have biases.
    norm_weight: norms multiply by 1 + scale ("offset": Griffin, Gemma) or by scale ("plain").
    scale_rounding: sqrt(width) is rounded to "bfloat16" always (RecurrentGemma) or to the dtype of
    the "weights" (Gemma).
    """

    only_initial: ClassVar[frozenset[str]] = frozenset({"mlp_init"})
    later: ClassVar[frozenset[str]] = frozenset(
        {"mlp", "mlp_bias", "tied", "norm_weight", "scale_rounding"}
    )
    vocab: int
    width: int
    mlp_width: int
    layers: int
    pattern: tuple[MixerConfig, ...]
    norm_eps: float = 1e-6
    logit_cap: float = 0.0
    scale_embeddings: bool = False
    mlp_init: str = "width"
    mlp: str = "geglu"
    mlp_bias: bool = True
    tied: bool = True
    norm_weight: str = "offset"
    scale_rounding: str = "bfloat16"

    def __post_init__(self) -> None:
        require(
            self.mlp in (*GATES, "none"),
            f'config.mlp must be {", ".join(map(repr, GATES))} or "none", not {self.mlp!r}',
        )
        require(
            self.scale_rounding in ("bfloat16", "weights"),
            f'config.scale_rounding must be "bfloat16" or "weights", not {self.scale_rounding!r}',
        )
        for name in ("vocab", "width", "layers"):
            require(getattr(self, name) > 0, f"config.{name} must be positive")
        require(
            self.mlp_width == 0 if self.mlp == "none" else self.mlp_width > 0,
            f"config.mlp_width must be {'0' if self.mlp == 'none' else 'positive'} "
            f"with mlp {self.mlp!r}, not {self.mlp_width}",
        )
        require(
            self.norm_weight in ("offset", "plain"),
            f'config.norm_weight must be "offset" or "plain", not {self.norm_weight!r}',
        )
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
        """Plain values only, for JSON; settings of `later` only where they differ."""
        return plain_settings(self, self.later) | {
            "pattern": [mixer.to_dict() for mixer in self.pattern]
        }

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
