"""Hugging Face's `llama`: Llama 3 to 3.2, and others that are written so.

Checked against transformers 5.23.
"""

from ..format import Dialect
from .transformer import GATES, NAMES, TIED, Family

_FAMILY = Family(
    model_type="llama",
    architecture="LlamaForCausalLM",
    fixed={"norm_weight": "plain", "scale_embeddings": False, "scale_rounding": "bfloat16"},
    defaults={
        "vocab": 32_000, "width": 4096, "mlp_width": 11_008, "layers": 32, "heads": 32,
        "kv_heads": 0, "head_dim": 0, "tied": False, "mlp": "swiglu",
    },
    gates=GATES,
    refused={"attention_bias": False, "mlp_bias": False},
)  # fmt: skip
LLAMA = Dialect(
    "llama", NAMES, _FAMILY.speaks, _FAMILY.read_config, _FAMILY.describe, duplicates=TIED
)
