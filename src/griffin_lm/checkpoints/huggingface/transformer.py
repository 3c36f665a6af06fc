"""What `gemma` and `llama` share: names of tensors, and a stack of attention and gated MLPs."""

from dataclasses import dataclass
from pathlib import Path

import torch

from ...errors import CheckpointError
from ...mixers import GlobalAttention
from ...models import ModelConfig
from ...shapes import JSON
from ..files import CONFIG
from ..format import Vocabulary
from ..names import Rename
from .rope import Rope, describe_rope, read_rope
from .settings import Settings, building, cannot, demand, refuse_unsaid, special_ids, the_one

_MINE, _THEIRS = "layers.{i}.", "model.layers.{i}."
_PARTS = (
    ("mixer_norm.scale", "input_layernorm.weight"),
    ("mlp_norm.scale", "post_attention_layernorm.weight"),
    *((f"mixer.{part}.weight", f"self_attn.{part}_proj.weight") for part in "qkv"),
    ("mixer.out.weight", "self_attn.o_proj.weight"),
    *((f"mlp.{part}.weight", f"mlp.{part}_proj.weight") for part in ("gate", "up", "down")),
)
NAMES = (
    Rename("embed.weight", "model.embed_tokens.weight", padded=True),
    Rename("head.weight", "lm_head.weight", padded=True),
    Rename("final_norm.scale", "model.norm.weight"),
    *(Rename(_MINE + ours, _THEIRS + theirs) for ours, theirs in _PARTS),
)
TIED = {"lm_head.weight": "model.embed_tokens.weight"}
GATES = {"silu": "swiglu", "gelu_pytorch_tanh": "geglu"}
_SAID = ("mlp", "mlp_bias", "tied", "norm_weight", "scale_rounding")  # of the config's later fields
_CONTEXT = 8192  # tokens that Gemma and Llama 3 were trained on; our config does not keep it


@dataclass(frozen=True)
class Family:
    """In what the model types differ.

    model_type, architecture: their words for it. fixed: settings of ModelConfig that it always
    means. defaults: of transformers, for fields that are left out; a head_dim of 0 is the width by
    the heads, kv_heads of 0 are as many as heads. gates: their word for the MLP's activation to
    ours. refused: fields, and the one value that is supported.
    """

    model_type: str
    architecture: str
    fixed: JSON
    defaults: JSON
    gates: dict[str, str]
    refused: JSON

    def speaks(self, config: ModelConfig) -> bool:
        """Global attention with the norm of this family; `describe` looks at the rest."""
        attends = all(type(mixer) is GlobalAttention for mixer in config.pattern)
        return attends and config.norm_weight == self.fixed["norm_weight"]

    def read_config(self, config: JSON, path: Path) -> ModelConfig:
        """Raises CheckpointError subclasses naming file and field."""
        get, usual = Settings(config, path), self.defaults
        for name, value in self.refused.items():
            get.only(name, value)
        heads, width = (
            get.whole("num_attention_heads", usual["heads"]),
            get.whole("hidden_size", usual["width"]),
        )
        rope = read_rope(get)
        if rope.fraction != 1:
            raise CheckpointError(
                f"{path}: partial_rotary_factor is {rope.fraction}; {self.model_type} turns whole "
                "heads, and only 1 is supported"
            )
        with building(path):
            attention = GlobalAttention(
                heads=heads,
                head_dim=get.whole("head_dim", usual["head_dim"] or width // heads),
                kv_heads=get.whole("num_key_value_heads", usual["kv_heads"] or heads),
                **rope.settings(),
            )
            made = ModelConfig(
                vocab=get.whole("vocab_size", usual["vocab"]),
                width=width,
                mlp_width=get.whole("intermediate_size", usual["mlp_width"]),
                layers=get.whole("num_hidden_layers", usual["layers"]),
                pattern=(attention,),
                norm_eps=get.real("rms_norm_eps", 1e-6),
                mlp=self._gate(get),
                tied=get.flag("tie_word_embeddings", usual["tied"]),
                mlp_bias=False,
                **self.fixed,
            )
        get.refuse_unread({"pretraining_tp"})  # the same products, in slices
        return made

    def describe(
        self, config: ModelConfig, dtype: torch.dtype, vocabulary: Vocabulary | None
    ) -> dict[str, JSON]:
        """config.json and, where the vocabulary is known, generation_config.json.

        Raises CheckpointMismatch for a model that this model type has no settings for.
        """
        mixer: GlobalAttention = the_one(GlobalAttention, config)
        refuse_unsaid(config, _SAID)
        demand(config, {"mlp_bias": False, "logit_cap": 0.0} | self.fixed)
        demand(mixer, {"out_bias": False, "rope_fraction": 1.0})
        words = {ours: theirs for theirs, ours in GATES.items()}
        if config.mlp not in words:
            raise cannot(f"has no word for mlp={config.mlp!r}")
        if config.width % mixer.heads:
            raise cannot(
                f"needs a width that the heads divide, and {config.width} is no multiple of "
                f"{mixer.heads}"
            )
        ids = special_ids(vocabulary)
        plain: JSON = {
            "architectures": [self.architecture],
            "model_type": self.model_type,
            "vocab_size": config.vocab,
            "hidden_size": config.width,
            "intermediate_size": config.mlp_width,
            "num_hidden_layers": config.layers,
            "num_attention_heads": mixer.heads,
            "num_key_value_heads": mixer.kv_heads,
            "head_dim": mixer.head_dim,
            "hidden_act": words[config.mlp],
            "rms_norm_eps": config.norm_eps,
            # as far as the scaling of frequencies stretches the context
            "max_position_embeddings": max(_CONTEXT, int(mixer.rope_context * mixer.rope_factor)),
            "tie_word_embeddings": config.tied,
            "torch_dtype": str(dtype).removeprefix("torch."),
            **self.refused,
            **describe_rope(Rope.of(mixer)),
            **ids,
        }
        return {CONFIG: plain} | ({"generation_config.json": ids} if vocabulary else {})

    def _gate(self, get: Settings) -> str:
        """The MLP; `hidden_activation`, where it is set, goes before `hidden_act`."""
        usual = "gelu_pytorch_tanh" if self.defaults["mlp"] == "geglu" else "silu"
        plain = get.word("hidden_act", usual, self.gates)
        return (
            get.word("hidden_activation", usual, GATES) if get.get("hidden_activation") else plain
        )
