"""What is done to each residual block before training: compiled, and computed twice."""

import importlib.util
import os
import shutil
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


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


def prepare_blocks(model: nn.Module, compiled: bool, twice: bool) -> None:
    """compiled: each block becomes one graph. twice: only a block's input is kept going forward.

    Parameters keep their names: only the blocks' `forward` is replaced, on this instance.
    """
    blocks: Any = getattr(model, "blocks", ())
    for block in blocks:
        if compiled:
            block.forward = torch.compile(block.forward, dynamic=False)
        if twice:
            block.forward = _twice(block.forward)


def _twice(forward: Any) -> Any:
    def run(*arguments: Any) -> Any:
        return checkpoint(forward, *arguments, use_reentrant=False)

    return run
