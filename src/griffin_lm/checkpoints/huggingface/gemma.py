"""Hugging Face's `gemma`: Gemma 2B and 7B, first generation. Checked against transformers 5.23."""

from ..format import Dialect
from .transformer import GATES, NAMES, TIED, Family

_FAMILY = Family(
    model_type="gemma",
    architecture="GemmaForCausalLM",
    fixed={"norm_weight": "offset", "scale_embeddings": True, "scale_rounding": "weights"},
    defaults={
        "vocab": 256_000, "width": 3072, "mlp_width": 24_576, "layers": 28, "heads": 16,
        "kv_heads": 16, "head_dim": 256, "tied": True, "mlp": "geglu",
    },
    # the first files say "gelu" and mean its tanh approximation, as they were trained with
    gates=GATES | {"gelu": "geglu"},
    refused={"attention_bias": False},
)  # fmt: skip
GEMMA = Dialect(
    "gemma", NAMES, _FAMILY.speaks, _FAMILY.read_config, _FAMILY.describe, duplicates=TIED
)
