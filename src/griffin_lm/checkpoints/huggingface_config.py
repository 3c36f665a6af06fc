"""config.json of Hugging Face's `recurrent_gemma`, every dialect of it, both ways.

Checked against transformers 5.23. Where a setting is left out, its default is transformers'.
Our window counts earlier tokens, as DeepMind's attention_window_size does, and the number is taken
as the file has it; transformers itself sees one key fewer.
"""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from ..errors import CheckpointCorrupt, CheckpointError, CheckpointMismatch, ConfigError
from ..mixers import RGLRU, LocalAttention, MixerConfig
from ..models import ModelConfig
from ..shapes import JSON
from .files import CONFIG
from .format import Vocabulary

MODEL_TYPE = "recurrent_gemma"
_UNCAPPED = 1e30  # transformers divides by the cap; this one leaves any logit as it is
_KINDS: dict[type[MixerConfig], str] = {RGLRU: "recurrent", LocalAttention: "attention"}


class _Settings:
    """config.json, read by name and type; null counts as left out."""

    def __init__(self, config: JSON, path: Path) -> None:
        self.config, self.path = config, path

    def refuse(self, name: str, want: str) -> CheckpointCorrupt:
        value = self.config.get(name)
        return CheckpointCorrupt(
            f"{self.path}: {name} must be {want}, not {value!r:.60}; correct it"
        )

    def whole(self, name: str, default: int) -> int:
        value = self.config.get(name)
        value = default if value is None else value
        if type(value) is not int or not 0 < value < 2**31:
            raise self.refuse(name, "a positive integer")
        return value

    def real(self, name: str, default: float) -> float:
        value = self.config.get(name)
        value = default if value is None else value
        if type(value) not in (int, float) or not 0 <= value <= _UNCAPPED:
            raise self.refuse(name, "a number of 0 or more")
        return float(value)

    def only(self, name: str, wanted: Any) -> None:
        """Refuses any value but the one that we compute with."""
        if self.config.get(name) not in (None, wanted):
            raise CheckpointError(
                f"{self.path}: {name} is {self.config[name]!r:.60}; only {wanted!r} is supported"
            )


def read_config(config: JSON, path: Path) -> ModelConfig:
    """The one place that knows what their settings mean (intermediate_size is both branches)."""
    get = _Settings(config, path)
    get.only("hidden_activation", "gelu_pytorch_tanh")
    get.only("attention_bias", False)
    width, heads = get.whole("hidden_size", 2560), get.whole("num_attention_heads", 10)
    layers, both = get.whole("num_hidden_layers", 26), get.whole("intermediate_size", 7680)
    if both % 2:
        raise get.refuse("intermediate_size", "even (both branches of the MLP together)")
    base, fraction = _rope(get)
    cap = get.real("logits_soft_cap", 0.0 if "logits_soft_cap" in config else 30.0)
    try:
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
                rope_base=base,
                rope_fraction=fraction,
            )
        return ModelConfig(
            vocab=get.whole("vocab_size", 256_000),
            width=width,
            mlp_width=both // 2,
            layers=layers,
            pattern=tuple(made[kind] for kind in kinds),
            norm_eps=get.real("rms_norm_eps", 1e-6),
            logit_cap=cap if cap < _UNCAPPED else 0.0,
            scale_embeddings=True,
        )
    except ConfigError as error:
        raise CheckpointCorrupt(
            f"{path} describes no model that can be built: {error}; correct it or fetch it again"
        ) from error


def _block_types(get: _Settings, layers: int) -> tuple[str, ...]:
    """The repeating kinds of blocks; a list that spells out every layer is folded to its period."""
    lists = [
        get.config[n] for n in ("block_types", "_block_types") if get.config.get(n) is not None
    ]
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


def _rope(get: _Settings) -> tuple[float, float]:
    """Rotary base and fraction; rope_parameters, the newer place, goes before the older ones."""
    base, fraction = get.real("rope_theta", 10_000.0), get.real("partial_rotary_factor", 0.5)
    for name in ("rope_parameters", "rope_scaling"):
        inner = get.config.get(name)
        if inner is None:
            continue
        if not isinstance(inner, dict) or any(isinstance(value, dict) for value in inner.values()):
            raise get.refuse(name, "one flat object")
        for key in ("rope_type", "type"):
            if inner.get(key) not in (None, "default"):
                raise CheckpointError(
                    f"{get.path}: {name}.{key} is {inner[key]!r:.60}; only 'default' is supported"
                )
        inside = _Settings(inner, get.path)
        base = inside.real("rope_theta", base)
        fraction = inside.real("partial_rotary_factor", fraction)
    return base, fraction


def describe(
    config: ModelConfig, dtype: torch.dtype, vocabulary: Vocabulary | None
) -> dict[str, JSON]:
    """config.json, and generation_config.json where the vocabulary is known.

    Raises CheckpointMismatch for a model that this format has no settings for.
    """
    recurrent, attention = _the(RGLRU, config), _the(LocalAttention, config)
    mixer = attention or recurrent
    if mixer is None or any(type(m) not in _KINDS for m in config.pattern):
        kinds = sorted({mixer.kind for mixer in config.pattern})
        raise _cannot(f"has no mixers but rg_lru and local_attention, and this model has {kinds}")
    if not config.scale_embeddings:
        raise _cannot("always scales embeddings by sqrt(width), and this model does not")
    if recurrent and attention and recurrent.heads != attention.heads:
        raise _cannot(
            f"has one number of heads, and this model has {recurrent.heads} gate blocks beside "
            f"{attention.heads} attention heads"
        )
    ids = _ids(vocabulary)
    plain: JSON = {
        "architectures": ["RecurrentGemmaForCausalLM"],
        "model_type": MODEL_TYPE,
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


def _the(kind: Any, config: ModelConfig) -> Any:
    """The settings of all mixers of a kind, which this format keeps once; None without any."""
    found = [mixer for mixer in config.pattern if type(mixer) is kind]
    for setting in (field.name for field in fields(kind)):
        values = {getattr(mixer, setting) for mixer in found}
        if len(values) > 1 and setting not in kind.only_initial:
            raise _cannot(f"has one {setting} for all {kind.kind} layers, and this model {values}")
    return found[0] if found else None


def _cannot(why: str) -> CheckpointMismatch:
    return CheckpointMismatch(f'the format "huggingface" {why}; save it with format="griffin"')


def _ids(vocabulary: Vocabulary | None) -> JSON:
    """Special ids as transformers names them; null for what is not known."""
    if vocabulary is None:
        return {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    stops = list(vocabulary.stop_ids)
    end = vocabulary.eos_id if len(stops) < 2 else stops
    return {
        "bos_token_id": vocabulary.bos_id,
        "eos_token_id": end,
        "pad_token_id": vocabulary.pad_id,
    }
