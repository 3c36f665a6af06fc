"""Every way in which a recurrent_gemma config.json says the same, and what is refused by name."""

import json
from pathlib import Path
from typing import Any

import pytest

import griffin_lm as griffin
from griffin_lm.checkpoints import detect, read_config
from griffin_lm.errors import CheckpointCorrupt, CheckpointError, GriffinError

# the file of the 2B model as it was published, less what says nothing about the model
PUBLISHED: dict[str, Any] = {
    "architectures": ["RecurrentGemmaForCausalLM"],
    "_block_types": ["recurrent", "recurrent", "attention"],
    "attention_bias": False,
    "attention_window_size": 2048,
    "bos_token_id": 2,
    "conv1d_width": 4,
    "eos_token_id": 1,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 2560,
    "intermediate_size": 15360,
    "logits_soft_cap": 30.0,
    "lru_width": 2560,
    "model_type": "recurrent_gemma",
    "num_attention_heads": 10,
    "num_hidden_layers": 26,
    "num_key_value_heads": 1,
    "pad_token_id": 0,
    "partial_rotary_factor": 0.5,
    "rms_norm_eps": 1e-06,
    "rope_theta": 10000.0,
    "torch_dtype": "bfloat16",
    "vocab_size": 256000,
}
ABSENT = object()


def config_of(folder: Path, changes: dict[str, Any]) -> griffin.ModelConfig:
    plain = {k: v for k, v in (PUBLISHED | changes).items() if v is not ABSENT}
    (folder / "config.json").write_text(json.dumps(plain))
    return read_config(folder)


ROPE = {"rope_theta": 10000.0, "partial_rotary_factor": 0.5, "rope_type": "default"}
SAME: dict[str, dict[str, Any]] = {
    "published": {},
    "block_types": {"_block_types": ABSENT, "block_types": PUBLISHED["_block_types"]},
    "both names of the block types": {"block_types": PUBLISHED["_block_types"]},
    "no block types": {"_block_types": ABSENT},
    "every layer": {"_block_types": (["recurrent", "recurrent", "attention"] * 9)[:26]},
    "rope_parameters": {
        "rope_parameters": ROPE,
        "rope_theta": ABSENT,
        "partial_rotary_factor": ABSENT,
    },
    "rope_parameters before rope_theta": {"rope_parameters": ROPE, "rope_theta": 5.0},
    "rope_parameters without the fraction": {
        "rope_parameters": {"rope_theta": 10000.0},
        "partial_rotary_factor": ABSENT,
    },
    "rope_scaling null": {"rope_scaling": None},
    "rope_scaling that scales nothing": {"rope_scaling": {"type": "default"}},
    "no rope at all": {"rope_theta": ABSENT, "partial_rotary_factor": ABSENT},
    "integers for numbers": {"rope_theta": 10000, "logits_soft_cap": 30},
    "lru_width null": {"lru_width": None},
    "no head_dim": {"head_dim": ABSENT},
    "defaults": {
        name: ABSENT
        for name in (
            "attention_bias", "attention_window_size", "conv1d_width", "hidden_activation",
            "hidden_size", "logits_soft_cap", "num_attention_heads", "num_hidden_layers",
            "rms_norm_eps", "vocab_size",
        )
    },
}  # fmt: skip


@pytest.mark.parametrize("dialect", SAME)
def test_it_is_the_2b_model_in_every_dialect(dialect: str, tmp_path: Path) -> None:
    assert config_of(tmp_path, SAME[dialect]) == griffin.PRESETS["recurrentgemma-2b"]
    assert detect(tmp_path) == "huggingface"


def test_it_is_the_9b_model(tmp_path: Path) -> None:
    changes = {
        "hidden_size": 4096, "intermediate_size": 24576, "num_attention_heads": 16,
        "lru_width": 4096, "num_hidden_layers": 38,
    }  # fmt: skip
    assert config_of(tmp_path, changes) == griffin.PRESETS["recurrentgemma-9b"]


def test_no_number_of_key_heads_means_one_for_each_query_head(tmp_path: Path) -> None:
    assert config_of(tmp_path, {"num_key_value_heads": None}).pattern[2].to_dict()["kv_heads"] == 10


@pytest.mark.parametrize("cap", [None, 0, 0.0, 1e30])
def test_no_soft_cap_is_told_apart_from_the_default(cap: Any, tmp_path: Path) -> None:
    assert config_of(tmp_path, {"logits_soft_cap": cap}).logit_cap == 0.0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("vocab_size", 300), ("hidden_size", 2580), ("intermediate_size", 100),
        ("num_hidden_layers", 5), ("num_attention_heads", 5), ("num_key_value_heads", 2),
        ("lru_width", 100), ("attention_window_size", 7), ("conv1d_width", 3),
        ("logits_soft_cap", 5.0), ("rms_norm_eps", 1e-5), ("rope_theta", 77.0),
        ("partial_rotary_factor", 1.0), ("head_dim", 32), ("block_types", ["recurrent"]),
    ],
)  # fmt: skip
def test_each_setting_reaches_the_model(name: str, value: Any, tmp_path: Path) -> None:
    changes = {name: value} | ({"_block_types": ABSENT} if name == "block_types" else {})
    assert config_of(tmp_path, changes) != griffin.PRESETS["recurrentgemma-2b"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hidden_activation", "silu"),
        ("attention_bias", True),
        ("rope_scaling", {"type": "linear", "factor": 2.0}),
        ("rope_parameters", {"rope_type": "yarn"}),
        ("rope_parameters", {"sliding_attention": ROPE}),
        ("rope_parameters", [1]),
        ("rope_theta", "10000"),
        ("rope_theta", 0.5),
        ("partial_rotary_factor", 2.0),
        ("partial_rotary_factor", 0.001953125 * 3),
        ("block_types", []),
        ("block_types", "recurrent"),
        ("block_types", ["recurrent", "mamba"]),
        ("block_types", ["attention"]),
        ("block_types", [["recurrent"]]),
        ("vocab_size", 0),
        ("vocab_size", True),
        ("vocab_size", "256000"),
        ("vocab_size", 2.5),
        ("vocab_size", 10**30),
        ("hidden_size", -1),
        ("intermediate_size", 15361),
        ("num_hidden_layers", []),
        ("num_attention_heads", 7),
        ("num_key_value_heads", 3),
        ("rms_norm_eps", 0),
        ("rms_norm_eps", -1e-6),
        ("logits_soft_cap", -1),
        ("conv1d_width", 1),
    ],
)
def test_what_we_cannot_compute_is_refused_by_name(name: str, value: Any, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        config_of(tmp_path, {name: value})
    message = str(caught.value)
    assert str(tmp_path / "config.json") in message
    ours = {
        "num_attention_heads": "rg_lru.heads", "num_key_value_heads": "kv_heads",
        "rms_norm_eps": "norm_eps" if value == 0 else "rms_norm_eps",
        "rope_theta": "rope_base" if value == 0.5 else "rope_theta",
        "partial_rotary_factor": "rope_fraction",
        "conv1d_width": "conv_width",
    }  # fmt: skip
    assert ours.get(name, name) in message


@pytest.mark.parametrize("kind", ["gpt2", 5, None, {"a": 1}])
def test_another_model_type_lists_the_known_ones(kind: Any, tmp_path: Path) -> None:
    with pytest.raises(GriffinError, match="recurrent_gemma"):
        config_of(tmp_path, {"model_type": kind})


@pytest.mark.parametrize("text", ["NaN", "Infinity", "1e999", "-Infinity"])
def test_numbers_that_are_none_are_refused(text: str, tmp_path: Path) -> None:
    config_of(tmp_path, {})
    file = tmp_path / "config.json"
    file.write_text(file.read_text().replace("1e-06", text))
    with pytest.raises(CheckpointCorrupt, match=r"config\.json"):
        read_config(tmp_path)
