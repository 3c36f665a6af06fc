"""What is done to each residual block before training: compiled, and computed twice."""

from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from .config import TrainConfig


def prepare_blocks(model: nn.Module, config: TrainConfig) -> None:
    """`compile`: each block becomes one graph. `checkpoint_blocks`: only its input is kept.

    Parameters keep their names: only the blocks' `forward` is replaced, on this instance.
    """
    blocks: Any = getattr(model, "blocks", ())
    for block in blocks:
        if config.compile:
            block.forward = torch.compile(block.forward, dynamic=False)
        if config.checkpoint_blocks:
            block.forward = _twice(block.forward)


def _twice(forward: Any) -> Any:
    def run(*arguments: Any) -> Any:
        return checkpoint(forward, *arguments, use_reentrant=False)

    return run
