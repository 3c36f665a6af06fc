"""QLoRA's base on an NVIDIA GPU: linear maps in bitsandbytes' NF4 (Dettmers et al. 2023).

Written after bitsandbytes' documentation and never run: no machine with such a GPU was at hand. On
a CPU the project's own int4 serves instead, and is tested.
"""

import importlib
import importlib.util
from typing import Any

import torch
from torch import nn

from ...errors import MissingExtra
from ...models import Griffin


def to_nf4(model: Griffin, device: torch.device) -> None:
    """Puts Linear4bit in place of every linear map of the layers, and the model on the device.

    peft knows these layers by itself. Raises MissingExtra where bitsandbytes is not installed.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        raise MissingExtra("bitsandbytes", "qlora", "a 4-bit base on a GPU")
    bitsandbytes: Any = importlib.import_module("bitsandbytes")
    for name, module in list(model.named_modules()):
        if not isinstance(module, nn.Linear) or not name.startswith("layers."):
            continue
        home, _, leaf = name.rpartition(".")
        bias: nn.Parameter | None = getattr(module, "bias", None)
        made = bitsandbytes.nn.Linear4bit(
            module.in_features,
            module.out_features,
            bias=bias is not None,
            compute_dtype=module.weight.dtype,
            quant_type="nf4",
        )
        weight = module.weight.detach()
        made.weight = bitsandbytes.nn.Params4bit(weight, requires_grad=False, quant_type="nf4")
        if bias is not None:
            made.bias = bias
        setattr(model.get_submodule(home), leaf, made)
    model.to(device)  # Params4bit are rounded by this move
