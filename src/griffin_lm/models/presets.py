"""Named configurations: each says only what differs (Griffin, table 2; RecurrentGemma, table 1)."""

from dataclasses import replace

from ..mixers import GRU, LRU, RGLRU, S6, LocalAttention, MixerConfig
from .config import ModelConfig
from .transformer_presets import TRANSFORMERS


def _griffin(
    width: int,
    recurrence: int,
    layers: int,
    blocks: int,
    head_dim: int,
    window: int = 1024,
    vocab: int = 256_000,
) -> ModelConfig:
    """Two recurrent blocks, then local attention, and so on; the MLP three times as wide."""
    recurrent = RGLRU(width=recurrence, heads=blocks)
    attention = LocalAttention(heads=width // head_dim, head_dim=head_dim, window=window)
    return ModelConfig(
        vocab=vocab,
        width=width,
        mlp_width=3 * width,
        layers=layers,
        pattern=(recurrent, recurrent, attention),
    )


def _recurrentgemma(width: int, layers: int, heads: int) -> ModelConfig:
    base = _griffin(width, width, layers, blocks=heads, head_dim=256, window=2048)
    return replace(base, logit_cap=30.0, scale_embeddings=True)


def _hawk(griffin: ModelConfig) -> ModelConfig:
    return replace(griffin, pattern=griffin.pattern[:1])


def _cell(griffin: ModelConfig, cell: MixerConfig) -> ModelConfig:
    """The Hawk of these sizes with another cell in its recurrent block."""
    return replace(griffin, pattern=(cell,))


def _mamba(width: int, layers: int, vocab: int = 50_280) -> ModelConfig:
    """Mamba: twice as wide inside, 16 states, no MLP (Gu and Dao 2023; 50277 words, padded)."""
    block = S6(width=2 * width, rank=-(-width // 16))
    return ModelConfig(
        vocab=vocab,
        width=width,
        mlp_width=0,
        mlp="none",
        layers=layers,
        pattern=(block,),
        norm_eps=1e-5,
        norm_weight="plain",
    )


# Griffin paper, appendix C, table 2: width, recurrence width, layers; 16 gate blocks (section 4.1)
_PAPER = {
    "100m": _griffin(768, 1024, 12, blocks=16, head_dim=128),
    "200m": _griffin(1024, 1536, 12, blocks=16, head_dim=128),
    "400m": _griffin(1536, 2048, 12, blocks=16, head_dim=128),
    "1.3b": _griffin(2048, 2560, 24, blocks=16, head_dim=128),
    "3b": _griffin(3072, 4096, 24, blocks=16, head_dim=128),
    "7b": _griffin(4096, 5632, 32, blocks=16, head_dim=128),
    "14b": _griffin(5120, 8192, 40, blocks=16, head_dim=128),
}
_CODE_7B = _griffin(4096, 5632, 32, blocks=32, head_dim=128)  # as the published code has it
_TINY = _griffin(32, 48, 5, blocks=4, head_dim=16, window=8, vocab=96)

# recurrences so wide that a model has about the parameters of the Hawk of its size
_LRU = {"100m": 512, "200m": 768, "400m": 1024, "1.3b": 1280}
_GRU = {"100m": 512, "200m": 704, "400m": 1024, "1.3b": 1280}

_PROSE = RGLRU(width=128, heads=4, lambda_init="paper")
FLEDGLING = ModelConfig(
    vocab=2048,
    width=128,
    mlp_width=256,
    layers=6,
    pattern=(_PROSE, _PROSE, LocalAttention(heads=4, head_dim=32, window=64)),
)

PRESETS: dict[str, ModelConfig] = {
    "recurrentgemma-2b": _recurrentgemma(2560, 26, heads=10),
    "recurrentgemma-9b": _recurrentgemma(4096, 38, heads=16),
    "griffin-code-7b": _CODE_7B,
    "hawk-code-7b": _hawk(_CODE_7B),
    **{f"griffin-{size}": config for size, config in _PAPER.items()},
    **{f"hawk-{size}": _hawk(config) for size, config in _PAPER.items() if size != "14b"},
    **TRANSFORMERS,
    **{f"lru-{size}": _cell(_PAPER[size], LRU(width=r, states=r)) for size, r in _LRU.items()},
    **{f"gru-{size}": _cell(_PAPER[size], GRU(width=r)) for size, r in _GRU.items()},
    "mamba-130m": _mamba(768, 24),
    "mamba-370m": _mamba(1024, 48),
    "mamba-790m": _mamba(1536, 48),
    "mamba-1.4b": _mamba(2048, 48),
    "mamba-2.8b": _mamba(2560, 64),
    "fledgling": FLEDGLING,
    "tiny-griffin": _TINY,
    "tiny-hawk": _hawk(_TINY),
    "tiny-lru": _cell(_TINY, LRU(width=24, states=16)),
    "tiny-gru": _cell(_TINY, GRU(width=24)),
    "tiny-mamba": _mamba(32, 3, vocab=96),
}
