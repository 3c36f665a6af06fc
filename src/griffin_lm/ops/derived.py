"""Tensors made of a weight once, for kernels that want it in another form."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import increment_version
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.weak import WeakIdKeyDictionary

from . import native

_made: WeakIdKeyDictionary = WeakIdKeyDictionary()  # weight -> {make: (its mark, what it made)}


def derived(weight: Tensor, make: Callable[[Tensor], Tensor]) -> Tensor:
    """make(weight), made anew once the weight was written to; without a gradient."""
    mark = native.mark(weight)
    forms = _made.get(weight)
    if forms is None:
        forms = _made[weight] = {}
    known = forms.get(make)
    if known is None or known[0] != mark:
        known = forms[make] = (mark, make(weight.detach()))
    return known[1]


def _note_fused_steps(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    """A fused step writes weights without counting up their versions, unlike any other (2.13).

    Without this, a model looked at between two such steps would go on with its first gates.
    """
    for group in optimizer.param_groups:
        if group.get("fused"):
            increment_version(group["params"])


register_optimizer_step_post_hook(_note_fused_steps)
