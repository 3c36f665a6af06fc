"""Which dtype a quantity has, and why: the one place where it is decided (docs/numerics.md)."""

import torch


def accumulation(dtype: torch.dtype) -> torch.dtype:
    """The dtype of the recurrence (from log a on), of its state, of norms and of rotary products.

    fp32: `a` reaches 0.999 and beyond, and bf16 (8 bits) rounds 0.999 * h back to h. float64 stays
    float64, so that gradients can be checked by finite differences.
    """
    return torch.float64 if dtype == torch.float64 else torch.float32
