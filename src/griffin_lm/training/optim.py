"""The optimiser's groups, and channels that hold from the start."""

import math

import torch
from torch import nn

from ..mixers import RGLRU
from ..mixers.rg_lru import RGLRUCell
from ..models.griffin import Griffin
from ..ops.rg_lru.definition import C
from .config import TrainConfig


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW; weight decay on matrices only: Lambda, biases and norms set time scales and levels."""
    named = dict(model.named_parameters())
    decayed = [p for name, p in named.items() if _is_matrix(name, p)]
    others = [p for name, p in named.items() if not _is_matrix(name, p)]
    return torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": config.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ],
        lr=config.peak_rate,
        betas=(config.beta1, config.beta2),
        fused=True,
    )


# matrices by shape alone: biases and taps, a block each; S6's decays and an LRU's input map, which
# their papers leave out as well
_UNDECAYED = (".b", ".bias", "conv.w", ".A_log", ".B_re", ".B_im")


def _is_matrix(name: str, parameter: torch.Tensor) -> bool:
    return parameter.dim() >= 2 and not name.endswith(_UNDECAYED)


@torch.no_grad()
def slow_channels(model: Griffin, config: TrainConfig) -> None:
    """Lets a share of each recurrent layer's channels hold by default and yet write hard.

    softplus(Lambda) is set to `slow_softplus`, and the bias b of the recurrence gate so that the
    half-life at rest, ln 2 / (c softplus(Lambda) sigmoid(b)), spans `slow_half_life` on a log
    scale: b = logit(ln 2 / (c softplus(Lambda) half_life)). Without such
    channels recall beyond a few hundred tokens was not learned (docs/log.md).
    """
    low, high = config.slow_half_life
    for layer, block in enumerate(model.blocks):
        mixer = model.config.mixer(layer)
        if not isinstance(mixer, RGLRU):
            continue
        cell = block.mixer.get_submodule("cell")
        assert isinstance(cell, RGLRUCell)
        heads, per_head = cell.a_gate.b.shape
        count = round(config.slow_share * per_head)
        if not count:
            continue
        # the same number in each head, since a gate sees its own head's inputs only
        half_life = torch.logspace(low, high, heads * count).view(count, heads).T
        share = math.log(2) / (C * config.slow_softplus * half_life)
        cell.a_gate.b[:, :count] = torch.logit(share)
        if config.slow_input_bias:
            cell.x_gate.b[:, :count] = config.slow_input_bias
        value = math.log(math.expm1(config.slow_softplus))  # the inverse of softplus
        cell.Lambda.view(heads, per_head)[:, :count] = value
