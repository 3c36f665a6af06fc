"""What is done to each residual block before training: compiled, and computed twice, all or part.

Going backward needs what was computed going forward. It is kept, or it is made again from less:

    none       everything is kept
    selective  matrix products and attention are kept; norms, gated products, conv, gates and
               recurrence are made again: little arithmetic, and about half of the bytes
    full       a block's input is kept, and the whole block is computed again

The gradients are the same to the bit: the same operations make the same numbers.
"""

import importlib.util
import os
import shutil
from functools import cache, partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from ..ops.backend import prefer, preferred

RECOMPUTE = ("none", "selective", "full")


def compile_why_not(device: torch.device) -> str | None:
    """Why torch.compile can't serve this device here, or None: it needs a compiler of its own."""
    if device.type == "cpu":
        names = (os.environ.get("CXX"), "g++", "clang++", "cl")
        found = any(name and shutil.which(name) for name in names)
        return None if found else "torch.compile needs a C++ compiler, and there is none"
    if device.type == "cuda":
        found = importlib.util.find_spec("triton") is not None
        return None if found else "torch.compile needs Triton, which is not installed"
    return f"torch.compile is not used on {device.type}"


def prepare_blocks(model: nn.Module, compiled: bool, recompute: str) -> None:
    """compiled: each block becomes one graph. recompute: one of RECOMPUTE, see the file's head.

    Parameters keep their names: only the blocks' `forward` is replaced, on this instance.
    """
    blocks: Any = getattr(model, "blocks", ())
    for block in blocks:
        if recompute == "selective":  # inside of the graph, whose compiler then knows of it
            contexts = partial(create_selective_checkpoint_contexts, kept)
            block.forward = _twice(block.forward, context_fn=contexts)
        if compiled:
            block.forward = torch.compile(block.forward, dynamic=False)
        if recompute == "full":
            block.forward = _twice(block.forward)


def restore_blocks(model: nn.Module) -> None:
    """Undoes prepare_blocks."""
    blocks: Any = getattr(model, "blocks", ())
    for block in blocks:
        vars(block).pop("forward", None)


def _twice(forward: Any, **options: Any) -> Any:
    def run(*arguments: Any) -> Any:
        return checkpoint(_as_now(forward), *arguments, use_reentrant=False, **options)

    return run


def _as_now(forward: Any) -> Any:
    """With the kernels that are in force now: going backward, no call of the model says which."""
    if torch.compiler.is_compiling():
        return forward  # the graph has them in it
    name = preferred()

    def run(*arguments: Any) -> Any:
        with prefer(name):
            return forward(*arguments)

    return run


def kept(_: Any, operation: Any, *arguments: Any, **options: Any) -> CheckpointPolicy:
    """What "selective" does with an operation's results."""
    costly = operation in _costly()
    return CheckpointPolicy.MUST_SAVE if costly else CheckpointPolicy.PREFER_RECOMPUTE


@cache
def _costly() -> frozenset[Any]:
    """Products of matrices and attention, as PyTorch dispatches them, whatever device it is.

    Not bmm, which makes the RG-LRU's gates: two of ten heads' blocks are a twentieth of the two
    linear maps before them, and their results are as large. FlexAttention is an operation within a
    compiled block, a compiled region in one that is not (`ops/attention/flex.py`).
    """
    aten = torch.ops.aten
    wanted = [aten.mm.default, aten.addmm.default, torch.ops.griffin_lm.band_attention.default]
    wanted += [
        getattr(aten, name).default
        for name in (
            "_scaled_dot_product_flash_attention",
            "_scaled_dot_product_efficient_attention",
            "_scaled_dot_product_cudnn_attention",
            "_scaled_dot_product_flash_attention_for_cpu",
        )
        if hasattr(aten, name)
    ]
    higher = ("flex_attention", "inductor_compiled_code")
    return frozenset([*wanted, *(getattr(torch.ops.higher_order, name) for name in higher)])
