"""Hugging Face's `mamba`: Mamba 130M to 2.8B. Checked against transformers 5.23.

`residual_in_fp32` is taken as it comes: in fp32 it changes nothing, and below that our residual
stream keeps the dtype of the weights, whatever it says.
"""

from pathlib import Path

import torch

from ...mixers import S6
from ...models import ModelConfig
from ...shapes import JSON
from ..files import CONFIG
from ..format import Dialect, Vocabulary
from ..names import Rename
from .settings import Settings, building, cannot, demand, refuse_unsaid, special_ids, the_one

_MINE, _THEIRS = "layers.{i}.", "backbone.layers.{i}."
_PARTS = (
    ("mixer_norm.scale", "norm.weight"),
    ("mixer.linear_in.weight", "mixer.in_proj.weight"),
    ("mixer.conv.b", "mixer.conv1d.bias"),
    ("mixer.select.weight", "mixer.x_proj.weight"),
    ("mixer.step.weight", "mixer.dt_proj.weight"),
    ("mixer.step.bias", "mixer.dt_proj.bias"),
    ("mixer.A_log", "mixer.A_log"),
    ("mixer.D", "mixer.D"),
    ("mixer.linear_out.weight", "mixer.out_proj.weight"),
)
NAMES = (
    Rename("embed.weight", "backbone.embeddings.weight", padded=True),
    Rename("head.weight", "lm_head.weight", padded=True),
    Rename("final_norm.scale", "backbone.norm_f.weight"),
    *(Rename(_MINE + ours, _THEIRS + theirs) for ours, theirs in _PARTS),
    Rename(
        _MINE + "mixer.conv.w",
        _THEIRS + "mixer.conv1d.weight",
        load=lambda w: w[:, 0].T,
        save=lambda w: w.T[:, None],  # theirs (E, 1, C), ours (C, E)
    ),
)
_FIXED: JSON = {
    "mlp": "none", "mlp_width": 0, "norm_weight": "plain", "scale_embeddings": False,
    "logit_cap": 0.0,
}  # fmt: skip
# of the first random weights, of kernels that compute the same, and of rows for the hardware, which
# vocab_size counts already
_WORDS = """
time_step_scale time_step_min time_step_max time_step_floor time_step_init_scheme
rescale_prenorm_residual use_mambapy use_associative_scan fused_add_norm
pad_vocab_size_multiple residual_in_fp32
"""
_HARMLESS = frozenset(_WORDS.split())


def read_config(config: JSON, path: Path) -> ModelConfig:
    """Raises CheckpointError subclasses naming file and field."""
    get = Settings(config, path)
    for name, value in (
        ("use_bias", False), ("use_conv_bias", True), ("hidden_act", "silu"), ("rms_norm", True),
    ):  # fmt: skip
        get.only(name, value)
    width, layers = get.whole("hidden_size", 768), get.whole("num_hidden_layers", 32)
    inner = int(get.real("expand", 2.0) * width)
    if not 0 < inner < 2**31:
        raise get.refuse("expand", f"a factor that makes an inner width of {width}")
    for name, value in (
        ("intermediate_size", inner), ("d_inner", inner), ("d_model", width), ("n_layer", layers),
    ):  # fmt: skip
        if get.get(name) not in (None, value):
            raise get.refuse(name, f"{value}, as expand and the other fields have it")
    rank = -(-width // 16) if get.get("time_step_rank") == "auto" else 0
    with building(path):
        block = S6(
            width=inner,
            rank=rank or get.whole("time_step_rank", -(-width // 16)),
            states=get.whole("state_size", 16),
            conv_width=get.whole("conv_kernel", 4),
        )
        made = ModelConfig(
            vocab=get.whole("vocab_size", 50_280),
            width=width,
            layers=layers,
            pattern=(block,),
            norm_eps=get.real("layer_norm_epsilon", 1e-5),
            tied=get.flag("tie_word_embeddings", True),
            **_FIXED,
        )
    get.refuse_unread(_HARMLESS)
    return made


def describe(
    config: ModelConfig, dtype: torch.dtype, vocabulary: Vocabulary | None
) -> dict[str, JSON]:
    """config.json and, where the vocabulary is known, generation_config.json.

    Raises CheckpointMismatch for a model that this model type has no settings for.
    """
    block: S6 = the_one(S6, config)
    refuse_unsaid(config, ("mlp", "norm_weight", "tied"))
    demand(config, _FIXED)
    if block.width % config.width:
        raise cannot(
            f"has an inner width of whole times the width, and {block.width} is no multiple of "
            f"{config.width}"
        )
    ids = special_ids(vocabulary)
    plain: JSON = {
        "architectures": ["MambaForCausalLM"],
        "model_type": "mamba",
        "vocab_size": config.vocab,
        "hidden_size": config.width,
        "intermediate_size": block.width,
        "expand": block.width // config.width,
        "num_hidden_layers": config.layers,
        "state_size": block.states,
        "time_step_rank": block.rank,
        "conv_kernel": block.conv_width,
        "layer_norm_epsilon": config.norm_eps,
        "hidden_act": "silu",
        "use_bias": False,
        "use_conv_bias": True,
        "tie_word_embeddings": config.tied,
        "torch_dtype": str(dtype).removeprefix("torch."),
        **ids,
    }
    return {CONFIG: plain} | ({"generation_config.json": ids} if vocabulary else {})


MAMBA = Dialect(
    "mamba",
    NAMES,
    lambda config: all(type(mixer) is S6 for mixer in config.pattern),
    read_config,
    describe,
    duplicates={"lm_head.weight": "backbone.embeddings.weight"},
)
