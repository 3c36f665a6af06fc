"""The compiled kernels, called with tensors.

The functions check nothing but what would crash: dtype, device, contiguity are the caller's.
"""

from .along_time import (
    conv,
    conv_backward,
    rg_lru,
    rg_lru_backward,
    ring_attention,
    scan,
    write_ring,
)
from .library import UNBUILT, isa, shares_threads, use, use_own_threads, why_not
from .products import (
    block_linear_bf16,
    block_linear_fp32,
    linear_bf16,
    linear_fp32,
    linear_int4,
    linear_int8,
)
from .rows import (
    band_gradient,
    band_softmax,
    gate,
    gate_backward,
    loss,
    norm,
    norm_backward,
)

__all__ = [
    "UNBUILT",
    "band_gradient",
    "band_softmax",
    "block_linear_bf16",
    "block_linear_fp32",
    "conv",
    "conv_backward",
    "gate",
    "gate_backward",
    "isa",
    "linear_bf16",
    "linear_fp32",
    "linear_int4",
    "linear_int8",
    "loss",
    "norm",
    "norm_backward",
    "rg_lru",
    "rg_lru_backward",
    "ring_attention",
    "scan",
    "shares_threads",
    "use",
    "use_own_threads",
    "why_not",
    "write_ring",
]
