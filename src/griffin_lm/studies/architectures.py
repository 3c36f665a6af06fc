"""The architectures that are compared, in one residual stack and of one size.

All share width, depth, norm, embedding and (but for Mamba, which has none) the gated MLP; only the
mixer differs. Griffin at its shape sets the number of non-embedding parameters, and every other one
is brought to it within TOLERANCE: by the width of its MLP, Mamba by the width of its recurrence.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from ..errors import ConfigError
from ..mixers import GRU, LRU, RGLRU, S6, GlobalAttention, LocalAttention
from ..models.config import ModelConfig
from ..models.sizes import parameter_count, parameter_counts

TOLERANCE = 0.01  # of the non-embedding parameters


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What all share: vocab V, width W, layers, heads, window of local attention in tokens.

    mlp_width: of Griffin's MLP; the others' follows. One block in three of Griffin is attention.
    """

    vocab: int
    width: int
    layers: int
    heads: int
    window: int
    mlp_width: int

    @property
    def head_dim(self) -> int:
        """Width of an attention head."""
        return self.width // self.heads


def _rg_lru(shape: Shape) -> RGLRU:
    """As wide as the model, as in RecurrentGemma and the paper's synthetic tasks (appendix H)."""
    return RGLRU(width=shape.width, heads=shape.heads, lambda_init="paper")


def _local(shape: Shape) -> LocalAttention:
    return LocalAttention(heads=shape.heads, head_dim=shape.head_dim, window=shape.window)


def _stack(shape: Shape, *pattern: object) -> ModelConfig:
    return ModelConfig(
        vocab=shape.vocab,
        width=shape.width,
        mlp_width=shape.mlp_width,
        layers=shape.layers,
        pattern=pattern,  # pyright: ignore[reportArgumentType]  # mixers of any kind
    )


def _griffin(shape: Shape) -> ModelConfig:
    return _stack(shape, _rg_lru(shape), _rg_lru(shape), _local(shape))


def _hawk(shape: Shape) -> ModelConfig:
    return _stack(shape, _rg_lru(shape))


def _lru(shape: Shape) -> ModelConfig:
    return _stack(shape, LRU(width=shape.width // 2, states=3 * shape.width // 4))


def _gru(shape: Shape) -> ModelConfig:
    return _stack(shape, GRU(width=shape.width // 2))


def _mamba(shape: Shape) -> ModelConfig:
    """Two of its blocks for one of attention and MLP (Gu and Dao 2023, section 3.4)."""
    block = S6(width=2 * shape.width, rank=-(-shape.width // 16))
    return replace(
        _stack(shape, block),
        mlp="none",
        mlp_width=0,
        layers=2 * shape.layers,
        norm_weight="plain",
        norm_eps=1e-5,
    )


def _global(shape: Shape, kv_heads: int) -> ModelConfig:
    """The Griffin paper's baseline where kv_heads is 1; half of each head turns, as there."""
    mixer = GlobalAttention(
        heads=shape.heads,
        head_dim=shape.head_dim,
        kv_heads=kv_heads,
        rope_fraction=0.5,
        out_bias=True,
    )
    return _stack(shape, mixer)


def _mqa(shape: Shape) -> ModelConfig:
    return _global(shape, 1)


def _mha(shape: Shape) -> ModelConfig:
    return _global(shape, shape.heads)


def _llama(shape: Shape) -> ModelConfig:
    """As Llama 3: a key/value head for four query heads, SwiGLU, no biases, a base of 500 000."""
    mixer = GlobalAttention(
        heads=shape.heads,
        head_dim=shape.head_dim,
        kv_heads=max(1, shape.heads // 4),
        rope_base=500_000.0,
    )
    stack = _stack(shape, mixer)
    return replace(stack, mlp="swiglu", mlp_bias=False, norm_weight="plain", norm_eps=1e-5)


ARCHITECTURES: dict[str, Callable[[Shape], ModelConfig]] = {
    "griffin": _griffin,
    "hawk": _hawk,
    "lru": _lru,
    "gru": _gru,
    "mamba": _mamba,
    "mqa": _mqa,
    "mha": _mha,
    "llama": _llama,
    "local": lambda shape: _stack(shape, _local(shape)),
}
LABELS = {
    "griffin": "Griffin",
    "hawk": "Hawk",
    "lru": "LRU",
    "gru": "GRU",
    "mamba": "Mamba (S6)",
    "mqa": "MQA, global",
    "mha": "MHA, global",
    "llama": "Llama-shaped",
    "local": "local attention",
}


def sized(name: str, shape: Shape) -> ModelConfig:
    """The architecture with Griffin's non-embedding parameters at this shape, within TOLERANCE.

    Raises ConfigError for an unknown name, and where no width comes near enough.
    """
    if name not in ARCHITECTURES:
        raise ConfigError(f"no architecture {name!r}; there are: {', '.join(ARCHITECTURES)}")
    wanted = inner_parameters(_griffin(shape))
    config = ARCHITECTURES[name](shape)
    for candidate in _candidates(config, wanted):
        if abs(inner_parameters(candidate) / wanted - 1) <= TOLERANCE:
            return candidate
    raise ConfigError(
        f"{name} at {shape} can't be brought to {wanted:,} parameters within {TOLERANCE:.0%}"
    )


def inner_parameters(config: ModelConfig) -> int:
    """All parameters but those of the embedding and the head."""
    outside = ("embedding (and head)", "embedding", "head")
    parts = parameter_counts(config)
    return parameter_count(config) - sum(parts.get(name, 0) for name in outside)


def _candidates(config: ModelConfig, wanted: int) -> Iterator[ModelConfig]:
    """The config itself, then with its free width where a straight line puts it, rounded."""
    yield config
    width = _free(config)
    below, above = (inner_parameters(_with(config, w)) for w in (width, width + 1))
    target = width + (wanted - below) / (above - below)
    for step in (32, 16, 8, 4, 2, 1):  # round numbers first: vectors like them
        if (near := step * round(target / step)) > 0:
            yield _with(config, near)


def _free(config: ModelConfig) -> int:
    mixer = config.pattern[0]
    return mixer.width if isinstance(mixer, S6) else config.mlp_width


def _with(config: ModelConfig, width: int) -> ModelConfig:
    mixer = config.pattern[0]
    if isinstance(mixer, S6):
        return replace(config, pattern=(replace(mixer, width=width),))
    return replace(config, mlp_width=width)
