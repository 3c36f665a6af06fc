"""A run's content as a function of its step, so that a mixture of two steps is seen."""

from typing import Any

import torch
from torch import Tensor

from griffin_lm.mixers import RGLRU
from griffin_lm.models import ModelConfig

CONFIG = ModelConfig(
    vocab=32, width=8, mlp_width=8, layers=1, pattern=(RGLRU(width=8, heads=2),)
).to_dict()


def content(step: int, size: int = 8) -> dict[str, Any]:
    """What a trainer might hand over: fp32, bf16 and integer tensors, plain values."""
    draw = torch.Generator().manual_seed(step)
    weights = {
        "first": torch.randn(size, 3, generator=draw),
        "second": torch.randn(size, generator=draw).bfloat16(),
        "counts": torch.arange(step, step + 4),
    }
    moments = {0: {"step": torch.tensor(float(step)), "exp_avg": torch.randn(3, generator=draw)}}
    return {
        "model": weights,
        "config": CONFIG,
        "optimizer": {"state": moments, "param_groups": [{"betas": (0.9, 0.99), "lr": 0.1}]},
        "feed": {"position": step, "bin": [[1, 2], [step]], "none": None},
        "progress": {"steps": step},
    }


def same(a: Any, b: Any) -> bool:
    """Equal to the bit, types too."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    return a == b
