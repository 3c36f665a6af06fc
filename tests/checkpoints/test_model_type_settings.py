"""config.json of gemma, llama and mamba: the published files, and what is refused by name."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import griffin_lm as griffin
from griffin_lm.checkpoints import read_config, save_model
from griffin_lm.errors import CheckpointError, CheckpointMismatch
from griffin_lm.mixers import S6, GlobalAttention

ABSENT = object()
SCALED = {
    "factor": 8.0,
    "high_freq_factor": 4.0,
    "low_freq_factor": 1.0,
    "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
}
# as they were published, with what says nothing about the model
GEMMA: dict[str, Any] = {
    "architectures": ["GemmaForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
    "bos_token_id": 2, "eos_token_id": 1, "head_dim": 256, "hidden_act": "gelu",
    "hidden_size": 2048, "initializer_range": 0.02, "intermediate_size": 16384,
    "max_position_embeddings": 8192, "model_type": "gemma", "num_attention_heads": 8,
    "num_hidden_layers": 18, "num_key_value_heads": 1, "pad_token_id": 0, "rms_norm_eps": 1e-06,
    "rope_scaling": None, "rope_theta": 10000.0, "torch_dtype": "bfloat16",
    "transformers_version": "4.38.0.dev0", "use_cache": True, "vocab_size": 256000,
}  # fmt: skip
LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
    "bos_token_id": 128000, "eos_token_id": 128001, "hidden_act": "silu", "hidden_size": 4096,
    "initializer_range": 0.02, "intermediate_size": 14336, "max_position_embeddings": 131072,
    "mlp_bias": False, "model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": 32,
    "num_key_value_heads": 8, "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_scaling": SCALED,
    "rope_theta": 500000.0, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
    "transformers_version": "4.43.0.dev0", "use_cache": True, "vocab_size": 128256,
}  # fmt: skip
MAMBA: dict[str, Any] = {
    "architectures": ["MambaForCausalLM"], "bos_token_id": 0, "conv_kernel": 4, "d_inner": 1536,
    "d_model": 768, "eos_token_id": 0, "expand": 2, "fused_add_norm": True, "hidden_act": "silu",
    "hidden_size": 768, "initializer_range": 0.1, "intermediate_size": 1536,
    "layer_norm_epsilon": 1e-05, "model_type": "mamba", "n_layer": 24, "num_hidden_layers": 24,
    "pad_token_id": 0, "pad_vocab_size_multiple": 8, "rescale_prenorm_residual": False,
    "residual_in_fp32": True, "rms_norm": True, "ssm_cfg": {}, "state_size": 16,
    "time_step_floor": 0.0001, "time_step_init_scheme": "random", "time_step_max": 0.1,
    "time_step_min": 0.001, "time_step_rank": 48, "time_step_scale": 1.0,
    "torch_dtype": "float32", "transformers_version": "4.39.0.dev0", "use_bias": False,
    "use_cache": True, "use_conv_bias": True, "vocab_size": 50280,
}  # fmt: skip
ONE = {
    "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "head_dim": 64,
    "tie_word_embeddings": True, "rope_scaling": SCALED | {"factor": 32.0},
}  # fmt: skip
NEWER = {
    "rope_scaling": ABSENT,
    "rope_theta": ABSENT,
    "rope_parameters": SCALED | {"rope_theta": 500000.0},
}
PUBLISHED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "gemma 2B": (GEMMA, {}, "gemma-2b"),
    "gemma 2B, corrected": (GEMMA, {"hidden_activation": "gelu_pytorch_tanh"}, "gemma-2b"),
    "gemma 2B, the first files": (GEMMA, {"hidden_activation": None}, "gemma-2b"),
    "gemma 7B": (
        GEMMA,
        {"hidden_size": 3072, "intermediate_size": 24576, "num_hidden_layers": 28}
        | {"num_attention_heads": 16, "num_key_value_heads": 16},
        "gemma-7b",
    ),
    "gemma 7B by defaults": (
        {"model_type": "gemma"},
        {},
        "gemma-7b",
    ),
    "llama 3": (LLAMA, {"rope_scaling": None}, "llama-3-8b"),
    "llama 3, default": (LLAMA, {"rope_scaling": {"type": "default"}}, "llama-3-8b"),
    "llama 3.1": (LLAMA, {}, "llama-3.1-8b"),
    "llama 3.1, newer": (LLAMA, NEWER, "llama-3.1-8b"),
    "llama 3.1, both": (LLAMA, {"rope_parameters": SCALED | {"rope_theta": 5e5}}, "llama-3.1-8b"),
    "llama 3.2 1B": (LLAMA, ONE, "llama-3.2-1b"),
    "mamba 130M": (MAMBA, {}, "mamba-130m"),
    "mamba 130M, auto": (MAMBA, {"time_step_rank": "auto"}, "mamba-130m"),
    "mamba 2.8B": (
        MAMBA,
        {"hidden_size": 2560, "d_model": 2560, "d_inner": 5120, "intermediate_size": 5120}
        | {"num_hidden_layers": 64, "n_layer": 64, "time_step_rank": 160},
        "mamba-2.8b",
    ),
}


def config_of(folder: Path, plain: dict[str, Any], changes: dict[str, Any]) -> griffin.ModelConfig:
    said = {k: v for k, v in (plain | changes).items() if v is not ABSENT}
    (folder / "config.json").write_text(json.dumps(said))
    return read_config(folder)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_files_are_the_presets(name: str, tmp_path: Path) -> None:
    plain, changes, preset = PUBLISHED[name]
    assert config_of(tmp_path, plain, changes) == griffin.PRESETS[preset]


@pytest.mark.parametrize(
    ("plain", "name", "value"),
    [
        (GEMMA, "attention_bias", True),
        (GEMMA, "hidden_act", "relu"),
        (GEMMA, "hidden_activation", "gelu"),
        (GEMMA, "use_bidirectional_attention", True),
        (GEMMA, "final_logit_softcapping", 30.0),
        (GEMMA, "sliding_window", 4096),
        (GEMMA, "quantization_config", {"bits": 4}),
        (GEMMA, "head_dim", 255),
        (GEMMA, "tie_word_embeddings", "yes"),
        (LLAMA, "attention_bias", True),
        (LLAMA, "mlp_bias", True),
        (LLAMA, "hidden_act", "gelu"),
        (LLAMA, "hidden_act", 7),
        (LLAMA, "partial_rotary_factor", 0.5),
        (LLAMA, "auto_map", {"AutoModel": "code.py"}),
        (LLAMA, "num_experts", 8),
        (LLAMA, "num_key_value_heads", 5),
        (LLAMA, "rope_scaling", SCALED | {"rope_type": "yarn"}),
        (LLAMA, "rope_scaling", {"type": "linear", "factor": 2.0}),
        (LLAMA, "rope_scaling", SCALED | {"type": "linear"}),
        (LLAMA, "rope_scaling", SCALED | {"attention_factor": 2.0}),
        (LLAMA, "rope_scaling", {k: v for k, v in SCALED.items() if k != "factor"}),
        (LLAMA, "rope_scaling", {k: v for k, v in SCALED.items() if k != "low_freq_factor"}),
        (LLAMA, "rope_scaling", SCALED | {"original_max_position_embeddings": 0.5}),
        (LLAMA, "rope_scaling", SCALED | {"factor": 0.5}),
        (LLAMA, "rope_scaling", SCALED | {"high_freq_factor": 1.0}),
        (LLAMA, "rope_scaling", [8.0]),
        (LLAMA, "rope_parameters", SCALED | {"factor": 32.0}),
        (LLAMA, "rope_parameters", {"full_attention": SCALED}),
        (MAMBA, "use_bias", True),
        (MAMBA, "use_conv_bias", False),
        (MAMBA, "hidden_act", "gelu"),
        (MAMBA, "rms_norm", False),
        (MAMBA, "ssm_cfg", {"layer": "Mamba2"}),
        (MAMBA, "d_inner", 1024),
        (MAMBA, "n_layer", 12),
        (MAMBA, "expand", 1.9999),
        (MAMBA, "expand", "2"),
        (MAMBA, "time_step_rank", "full"),
        (MAMBA, "state_size", 0),
        (MAMBA, "conv_kernel", 1),
        (MAMBA, "layer_norm_epsilon", -1),
        (MAMBA, "attn_layer_idx", [3]),
    ],
)
def test_what_we_cannot_compute_is_refused_by_name(
    plain: dict[str, Any], name: str, value: Any, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError) as caught:
        config_of(tmp_path, plain, {name: value})
    message = str(caught.value)
    assert str(tmp_path / "config.json") in message
    ours = {
        "num_key_value_heads": "kv_heads", "head_dim": "head_dim", "conv_kernel": "conv_width",
        "expand": "expand", "rope_parameters": "rope_",
        "rope_scaling": "rope_",
    }  # fmt: skip
    assert ours.get(name, name) in message


def test_fields_that_say_nothing_about_the_model_are_passed_over(tmp_path: Path) -> None:
    extra = {"label2id": {"a": 0}, "do_sample": True, "_name_or_path": "x", "id2label": {"0": "a"}}
    odd = {"use_bidirectional_attention": None, "is_encoder_decoder": False, "anything": None}
    assert config_of(tmp_path, GEMMA, extra | odd) == griffin.PRESETS["gemma-2b"]


TINY = griffin.PRESETS["tiny-llama"]
ATTENTION: Any = TINY.pattern[0]
GEMMAS = griffin.PRESETS["tiny-gemma"]


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (griffin.PRESETS["tiny-mqa"], "mlp_bias"),
        (replace(TINY, pattern=(replace(ATTENTION, out_bias=True),)), "out_bias"),
        (replace(TINY, pattern=(replace(ATTENTION, rope_fraction=0.5),)), "rope_fraction"),
        (replace(TINY, pattern=(ATTENTION, ATTENTION)), "pattern of 2"),
        (replace(TINY, logit_cap=30.0), "logit_cap"),
        (replace(TINY, scale_embeddings=True), "scale_embeddings"),
        (replace(GEMMAS, scale_embeddings=False), "scale_embeddings"),
        (replace(GEMMAS, scale_rounding="bfloat16"), "scale_rounding"),
        (replace(TINY, mlp="none", mlp_width=0), "mlp"),
        (replace(TINY, width=30), "heads divide"),
        (replace(griffin.PRESETS["tiny-mamba"], pattern=(S6(width=48, rank=2),)), "whole times"),
        (replace(griffin.PRESETS["tiny-mamba"], norm_weight="offset"), "norm_weight"),
        (replace(TINY, pattern=(ATTENTION, S6(width=64, rank=2))), "global_attention, s6"),
        (griffin.PRESETS["tiny-gru"], "gru"),
    ],
)
def test_a_model_that_no_model_type_can_say_is_refused_with_the_reason(
    config: griffin.ModelConfig, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointMismatch, match=reason):
        save_model(griffin.build(config), tmp_path / "m", "huggingface")
    assert not (tmp_path / "m").exists()


def test_a_scaling_that_is_off_keeps_its_other_numbers(tmp_path: Path) -> None:
    off = GlobalAttention(heads=4, head_dim=8, kv_heads=2, rope_context=77)
    config = replace(TINY, pattern=(off,))
    save_model(griffin.build(config), tmp_path / "m", "huggingface")
    assert read_config(tmp_path / "m") == config
