"""Hugging Face's `recurrent_gemma`: what it calls things, every dialect of its config.json.

Checked against transformers 5.23. Where a setting is left out, its default is transformers'.
Our window counts earlier tokens, as DeepMind's attention_window_size does, and the number is taken
as the file has it; transformers itself sees one key fewer.
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from ...errors import CheckpointCorrupt
from ...mixers import RGLRU, LocalAttention, MixerConfig
from ...models import ModelConfig
from ...shapes import JSON
from ..files import CONFIG
from ..format import Dialect, Vocabulary
from ..names import Rename
from .rope import read_rope
from .settings import Settings, building, cannot, refuse_unsaid, special_ids, the_only

_UNCAPPED = 1e30  # transformers divides by the cap; this one leaves any logit as it is
_KINDS: dict[type[MixerConfig], str] = {RGLRU: "recurrent", LocalAttention: "attention"}

# of the first random weights, and of mixers that a model may not have
_WORDS = """
w_init_variance_scale final_w_init_variance_scale lru_width conv1d_width head_dim
num_key_value_heads attention_window_size
"""
_HARMLESS = frozenset(_WORDS.split())

_MINE, _THEIRS = "layers.{i}.", "model.layers.{i}."


def _linear(ours: str, theirs: str, *parts: str) -> tuple[Rename, ...]:
    names = ((f"{_MINE}{ours}.{part}", f"{_THEIRS}{theirs}.{part}") for part in parts)
    return tuple(Rename(*pair) for pair in names)


_CELL, _RG_LRU = _MINE + "mixer.cell.", _THEIRS + "temporal_block.rg_lru."
NAMES = (
    Rename("embed.weight", "model.embed_tokens.weight", padded=True),
    Rename("final_norm.scale", "model.final_norm.weight"),
    Rename(_MINE + "mixer_norm.scale", _THEIRS + "temporal_pre_norm.weight"),
    Rename(_MINE + "mlp_norm.scale", _THEIRS + "channel_pre_norm.weight"),
    *_linear("mlp.gate", "mlp_block.gate_proj", "weight", "bias"),
    *_linear("mlp.up", "mlp_block.up_proj", "weight", "bias"),
    *_linear("mlp.down", "mlp_block.down_proj", "weight", "bias"),
    *_linear("mixer.linear_x", "temporal_block.linear_x", "weight", "bias"),
    *_linear("mixer.linear_y", "temporal_block.linear_y", "weight", "bias"),
    *_linear("mixer.linear_out", "temporal_block.linear_out", "weight", "bias"),
    Rename(
        _MINE + "mixer.conv.w",
        _THEIRS + "temporal_block.conv_1d.weight",
        load=lambda w: w[:, 0].T,
        save=lambda w: w.T[:, None],  # theirs (R, 1, C), ours (C, R)
    ),
    Rename(_MINE + "mixer.conv.b", _THEIRS + "temporal_block.conv_1d.bias"),
    Rename(_CELL + "Lambda", _RG_LRU + "recurrent_param"),
    Rename(_CELL + "a_gate.w", _RG_LRU + "recurrent_gate_weight"),
    Rename(_CELL + "a_gate.b", _RG_LRU + "recurrent_gate_bias"),
    Rename(_CELL + "x_gate.w", _RG_LRU + "input_gate_weight"),
    Rename(_CELL + "x_gate.b", _RG_LRU + "input_gate_bias"),
    *_linear("mixer.q", "temporal_block.q_proj", "weight"),
    *_linear("mixer.k", "temporal_block.k_proj", "weight"),
    *_linear("mixer.v", "temporal_block.v_proj", "weight"),
    *_linear("mixer.out", "temporal_block.o_proj", "weight", "bias"),
)


def read_config(config: JSON, path: Path) -> ModelConfig:
    """The one place that knows what their settings mean (intermediate_size is both branches)."""
    get = Settings(config, path)
    get.only("hidden_activation", "gelu_pytorch_tanh")
    get.only("attention_bias", False)
    get.only("tie_word_embeddings", True)
    width, heads = get.whole("hidden_size", 2560), get.whole("num_attention_heads", 10)
    layers, both = get.whole("num_hidden_layers", 26), get.whole("intermediate_size", 7680)
    if both % 2:
        raise get.refuse("intermediate_size", "even (both branches of the MLP together)")
    rope = read_rope(get, fraction=0.5, scaled=False)
    cap = get.real("logits_soft_cap", 0.0 if "logits_soft_cap" in config else 30.0)
    with building(path):
        made: dict[str, MixerConfig] = {}
        kinds = _block_types(get, layers)
        if "recurrent" in kinds:
            made["recurrent"] = RGLRU(
                width=get.whole("lru_width", width),
                heads=heads,
                conv_width=get.whole("conv1d_width", 4),
            )
        if "attention" in kinds:
            made["attention"] = LocalAttention(
                heads=heads,
                head_dim=get.whole("head_dim", width // heads),
                window=get.whole("attention_window_size", 2048),
                kv_heads=get.whole("num_key_value_heads", heads),
                rope_base=rope.base,
                rope_fraction=rope.fraction,
            )
        settled = ModelConfig(
            vocab=get.whole("vocab_size", 256_000),
            width=width,
            mlp_width=both // 2,
            layers=layers,
            pattern=tuple(made[kind] for kind in kinds),
            norm_eps=get.real("rms_norm_eps", 1e-6),
            logit_cap=cap if cap < _UNCAPPED else 0.0,
            scale_embeddings=True,
        )
    get.refuse_unread(_HARMLESS)
    return settled


def _block_types(get: Settings, layers: int) -> tuple[str, ...]:
    """The repeating kinds of blocks; a list that spells out every layer is folded to its period."""
    lists = [kinds for n in ("block_types", "_block_types") if (kinds := get.get(n)) is not None]
    for kinds in lists:
        known = isinstance(kinds, list) and all(kind in _KINDS.values() for kind in kinds)
        if not known or not kinds:
            raise CheckpointCorrupt(
                f"{get.path}: block_types must list 'recurrent' and 'attention', not {kinds!r:.60}"
            )
    if len(lists) == 2 and lists[0] != lists[1]:
        raise CheckpointCorrupt(f"{get.path}: block_types and _block_types disagree; keep one")
    kinds: Sequence[str] = lists[0] if lists else ("recurrent", "recurrent", "attention")
    periods = range(1, len(kinds) + 1) if len(kinds) >= layers else (len(kinds),)
    fits = (n for n in periods if all(kind == kinds[i % n] for i, kind in enumerate(kinds)))
    return tuple(kinds[: next(fits)])


def describe(
    config: ModelConfig, dtype: torch.dtype, vocabulary: Vocabulary | None
) -> dict[str, JSON]:
    """config.json, and generation_config.json where the vocabulary is known.

    Raises CheckpointMismatch for a model that this format has no settings for.
    """
    recurrent, attention = the_only(RGLRU, config), the_only(LocalAttention, config)
    mixer = attention or recurrent  # `speaks` saw that there is one
    refuse_unsaid(config)
    if not config.scale_embeddings:
        raise cannot("always scales embeddings by sqrt(width), and this model does not")
    if recurrent and attention and recurrent.heads != attention.heads:
        raise cannot(
            f"has one number of heads, and this model has {recurrent.heads} gate blocks beside "
            f"{attention.heads} attention heads"
        )
    ids = special_ids(vocabulary)
    plain: JSON = {
        "architectures": ["RecurrentGemmaForCausalLM"],
        "model_type": "recurrent_gemma",
        "vocab_size": config.vocab,
        "hidden_size": config.width,
        "intermediate_size": 2 * config.mlp_width,
        "num_hidden_layers": config.layers,
        "block_types": [_KINDS[type(mixer)] for mixer in config.pattern],
        "num_attention_heads": mixer.heads,
        "lru_width": recurrent.width if recurrent else config.width,
        "conv1d_width": recurrent.conv_width if recurrent else 4,
        "num_key_value_heads": attention.kv_heads if attention else 1,
        "head_dim": attention.head_dim if attention else max(config.width // mixer.heads, 2),
        "attention_window_size": attention.window if attention else 2048,
        "rope_theta": attention.rope_base if attention else 10_000.0,
        "partial_rotary_factor": attention.rope_fraction if attention else 0.5,
        "rms_norm_eps": config.norm_eps,
        "logits_soft_cap": config.logit_cap or _UNCAPPED,
        "hidden_activation": "gelu_pytorch_tanh",
        "attention_bias": False,
        "tie_word_embeddings": True,
        "torch_dtype": str(dtype).removeprefix("torch."),
        **ids,
    }
    plain["rope_parameters"] = {
        "rope_type": "default",
        "rope_theta": plain["rope_theta"],
        "partial_rotary_factor": plain["partial_rotary_factor"],
    }
    return {CONFIG: plain} | ({"generation_config.json": ids} if vocabulary else {})


def speaks(config: ModelConfig) -> bool:
    """Models of these two mixers; which of their settings can be said, `describe` finds out."""
    return all(type(mixer) in _KINDS for mixer in config.pattern)


RECURRENT_GEMMA = Dialect(
    "recurrent_gemma",
    NAMES,
    speaks,
    read_config,
    describe,
    duplicates={"lm_head.weight": "model.embed_tokens.weight"},
)
