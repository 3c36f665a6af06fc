"""The transformers beside which recurrent models are measured, in the same residual stack.

The paper's own multi-query baseline (Griffin, section 2 and table 2), Gemma (Gemma report, table 1;
2403.08295) and Llama 3 (2407.21783, table 3; the published configs of 3.2).
"""

from dataclasses import replace

from ..mixers import GlobalAttention
from .config import ModelConfig


def mqa(width: int, layers: int, head_dim: int = 128, vocab: int = 256_000) -> ModelConfig:
    """The paper's baseline: Griffin with every mixer replaced by global multi-query attention.

    Half of each head turns and the output projection has a bias, as in its local attention.
    """
    attention = GlobalAttention(
        heads=width // head_dim, head_dim=head_dim, rope_fraction=0.5, out_bias=True
    )
    return ModelConfig(
        vocab=vocab, width=width, mlp_width=3 * width, layers=layers, pattern=(attention,)
    )


def gemma(
    width: int,
    layers: int,
    mlp_width: int,
    heads: int,
    kv_heads: int,
    head_dim: int = 256,
    vocab: int = 256_000,
) -> ModelConfig:
    """GeGLU, scaled and tied embeddings, norms of 1 + scale, no bias, rotation of whole heads."""
    return ModelConfig(
        vocab=vocab,
        width=width,
        mlp_width=mlp_width,
        layers=layers,
        pattern=(GlobalAttention(heads=heads, head_dim=head_dim, kv_heads=kv_heads),),
        scale_embeddings=True,
        scale_rounding="weights",
        mlp_bias=False,
    )


def llama(
    width: int,
    layers: int,
    mlp_width: int,
    heads: int,
    kv_heads: int = 8,
    vocab: int = 128_256,
    tied: bool = False,
) -> ModelConfig:
    """SwiGLU, grouped-query attention, plain norm weights, no bias, a rotary base of 500 000."""
    attention = GlobalAttention(
        heads=heads, head_dim=width // heads, kv_heads=kv_heads, rope_base=500_000.0
    )
    return ModelConfig(
        vocab=vocab,
        width=width,
        mlp_width=mlp_width,
        layers=layers,
        pattern=(attention,),
        norm_eps=1e-5,
        norm_weight="plain",
        mlp="swiglu",
        mlp_bias=False,
        tied=tied,
    )


def stretched(config: ModelConfig, factor: float, context: int = 8192) -> ModelConfig:
    """The same model with Llama 3.1's scaled rotary frequencies."""
    return replace(
        config,
        pattern=tuple(
            replace(mixer, rope_factor=factor, rope_context=context) for mixer in config.pattern
        ),
    )


_LLAMA_3_8B = llama(4096, 32, 14_336, heads=32)

TRANSFORMERS: dict[str, ModelConfig] = {
    "mqa-100m": mqa(768, 12),
    "mqa-200m": mqa(1024, 12),
    "mqa-400m": mqa(1536, 12),
    "mqa-1.3b": mqa(2048, 24),
    "mqa-3b": mqa(3072, 24),
    "mqa-6b": mqa(4096, 32),  # the row of 7B: without a recurrence it has 6B
    "gemma-2b": gemma(2048, 18, 16_384, heads=8, kv_heads=1),
    "gemma-7b": gemma(3072, 28, 24_576, heads=16, kv_heads=16),
    "llama-3-8b": _LLAMA_3_8B,
    "llama-3.1-8b": stretched(_LLAMA_3_8B, 8.0),
    "llama-3.2-1b": stretched(llama(2048, 16, 8192, heads=32, tied=True), 32.0),
    "llama-3.2-3b": stretched(llama(3072, 28, 8192, heads=24, tied=True), 32.0),
    "tiny-mqa": mqa(32, 3, head_dim=8, vocab=96),
    "tiny-gemma": gemma(32, 3, 48, heads=4, kv_heads=1, head_dim=16, vocab=96),
    "tiny-llama": stretched(llama(32, 3, 56, heads=4, kv_heads=2, vocab=96), 8.0, context=24),
}
