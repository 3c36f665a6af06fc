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
    """AdamW over what is trainable, in two groups: with weight decay, and without.

    Spared are norms and biases, which set levels; all of an RG-LRU (Lambda, theta, its gates),
    which sets time scales; and what other cells' papers spare.
    """
    spared = _spared(model)
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    groups = [
        {"params": [p for _, p in named if p not in spared], "weight_decay": config.weight_decay},
        {"params": [p for _, p in named if p in spared], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.peak_rate,
        betas=(config.beta1, config.beta2),
        fused=True,
    )


# matrices by shape alone: biases and taps, a block each; S6's decays and an LRU's input map, which
# their papers leave out as well
_SPARED = (".b", ".bias", "conv.w", ".A_log", ".B_re", ".B_im")


def _spared(model: nn.Module) -> set[nn.Parameter]:
    """Parameters without weight decay. A parameter hashes by identity."""
    cells = (module for module in model.modules() if isinstance(module, RGLRUCell))
    spared = {p for cell in cells for p in cell.parameters()}
    return spared | {
        p for name, p in model.named_parameters() if p.dim() < 2 or name.endswith(_SPARED)
    }


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
