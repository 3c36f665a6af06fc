"""Hugging Face's `recurrent_gemma` folders: what they call things."""

from ..shapes import JSON
from .format import Format
from .huggingface_config import MODEL_TYPE, describe, read_config
from .names import Rename

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


def matches(config: JSON) -> bool:
    """Whether config.json names the model type of RecurrentGemma."""
    return config.get("model_type") == MODEL_TYPE


HUGGINGFACE = Format(
    "huggingface",
    NAMES,
    matches,
    read_config,
    describe,
    duplicates={"lm_head.weight": "model.embed_tokens.weight"},
)
