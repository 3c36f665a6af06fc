"""The compiled kernels, called with tensors.

The functions check nothing but what would crash: dtype, device, contiguity are the caller's.
"""

from .along_time import (
    MOST_STATES,
    STATES_KEPT_EVERY,
    conv,
    conv_backward,
    rg_lru,
    rg_lru_backward,
    ring_attention,
    scan,
    scan_backward,
    selective_scan,
    selective_scan_backward,
    write_ring,
)
from .band import band_backward, band_forward, band_gradient, band_softmax, has_band
from .halves import (
    DENSE,
    INT4,
    INT8,
    array,
    attention_half,
    bits,
    mlp_half,
    recurrent_half,
)
from .library import UNBUILT, at, is_wide, isa, mark, shares_threads, use, use_own_threads, why_not
from .products import (
    block_linear_bf16,
    block_linear_fp32,
    linear_bf16,
    linear_fp32,
    linear_int4,
    linear_int8,
)
from .rows import (
    gate,
    gate_backward,
    loss,
    norm,
    norm_backward,
)

__all__ = [
    "DENSE",
    "INT4",
    "INT8",
    "MOST_STATES",
    "STATES_KEPT_EVERY",
    "UNBUILT",
    "array",
    "at",
    "attention_half",
    "band_backward",
    "band_forward",
    "band_gradient",
    "band_softmax",
    "bits",
    "block_linear_bf16",
    "block_linear_fp32",
    "conv",
    "conv_backward",
    "gate",
    "gate_backward",
    "has_band",
    "is_wide",
    "isa",
    "linear_bf16",
    "linear_fp32",
    "linear_int4",
    "linear_int8",
    "loss",
    "mark",
    "mlp_half",
    "norm",
    "norm_backward",
    "recurrent_half",
    "rg_lru",
    "rg_lru_backward",
    "ring_attention",
    "scan",
    "scan_backward",
    "selective_scan",
    "selective_scan_backward",
    "shares_threads",
    "use",
    "use_own_threads",
    "why_not",
    "write_ring",
]
