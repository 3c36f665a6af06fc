"""The residual block: norm, mixer, add; norm, MLP, add (Griffin, section 2.1)."""

import torch
from torch import nn

from ..layers.mlp import GatedMLP
from ..layers.norm import RMSNorm
from ..mixers import Mixer, MixerState, Span
from ..shapes import Hidden
from .config import ModelConfig


class ResidualBlock(nn.Module):
    """One layer of the stack; with `config.mlp` "none" its second half and that norm are absent."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        offset = config.norm_weight == "offset"
        self.mixer_norm = RMSNorm(config.width, config.norm_eps, offset)
        self.mixer: Mixer = config.mixer(layer).build(config.width)
        self.mlp: GatedMLP | None = None
        if config.mlp != "none":
            self.mlp_norm = RMSNorm(config.width, config.norm_eps, offset)
            self.mlp = GatedMLP(config.width, config.mlp_width, config.mlp, config.mlp_bias)

    def initialise(self, config: ModelConfig, random: torch.Generator) -> None:
        """Random weights."""
        self.mixer_norm.initialise()
        self.mixer.initialise(config.layers, random)
        if self.mlp is not None:
            self.mlp_norm.initialise()
            fan_in = config.width * (2 if config.mlp_init == "doubled" else 1)
            self.mlp.initialise(fan_in, config.layers, random)

    def forward(self, x: Hidden, span: Span, state: MixerState) -> tuple[Hidden, MixerState]:
        """x after the block, and the mixer's state."""
        fused = self.mixer.fused(self.mixer_norm, x, span, state)
        if fused is not None:
            x, state = fused
        else:
            mixed, state = self.mixer(self.mixer_norm(x), span, state)
            if self.mlp is not None and x.device.type != "cpu":  # there sum and norm are a kernel
                x, normed = self.mlp_norm.after_sum(x, mixed)
                return x + self.mlp(normed), state
            x = x + mixed
        if self.mlp is None:
            return x, state
        whole = self.mlp.fused(self.mlp_norm, x)
        return (x + self.mlp(self.mlp_norm(x)) if whole is None else whole), state
