"""Named configurations: each says only what differs (Griffin, table 2; RecurrentGemma, table 1)."""

from dataclasses import replace

from ..mixers import RGLRU, LocalAttention
from .config import ModelConfig


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
    "fledgling": FLEDGLING,
    "tiny-griffin": _TINY,
    "tiny-hawk": _hawk(_TINY),
}
