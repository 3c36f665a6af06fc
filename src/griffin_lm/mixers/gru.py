"""GRU, the Gated Recurrent Unit (Cho et al. 2014), as a cell of the recurrent block.

    r_t = sigmoid(W_ir x_t + b_ir + W_hr h_{t-1} + b_hr)         reset gate
    z_t = sigmoid(W_iz x_t + b_iz + W_hz h_{t-1} + b_hz)         update gate
    n_t = tanh(W_in x_t + b_in + r_t (W_hn h_{t-1} + b_hn))      candidate
    h_t = (1 - z_t) n_t + z_t h_{t-1}

The gates stand in the order r, z, n in `from_x` (W_i, b_i) and `from_h` (W_h, b_h), as in
torch.nn.GRU. The only cell here whose gates see the state: it must walk its tokens one by one.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..ops.gru import gru
from ..shapes import JSON, Flags
from .base import MixerConfig, require
from .recurrent_block import RecurrentBlock


@dataclass(frozen=True, kw_only=True)
class GRU(MixerConfig):
    """Settings of a recurrent block around a GRU.

    width: channels of the recurrence; conv_width: taps of the conv in front of it.
    """

    kind: ClassVar[str] = "gru"
    width: int
    conv_width: int = 4

    def __post_init__(self) -> None:
        require(self.width > 0, "gru.width must be positive")
        require(self.conv_width >= 2, f"gru.conv_width must be 2 or more, not {self.conv_width}")

    def build(self, width: int) -> RecurrentBlock:
        """A recurrent block whose cell is a GRU."""
        return RecurrentBlock(width, self.width, self.conv_width, GRUCell(self.width))


class GRUCell(nn.Module):
    """The recurrence alone: (B, T, R) in; its states h (B, T, R), in fp32, are its outputs."""

    uncalled = frozenset({"from_h"})  # linear maps whose weights go into the op, not called

    def __init__(self, width: int) -> None:
        super().__init__()
        self.states = width
        self.from_x = nn.Linear(width, 3 * width)
        self.from_h = nn.Linear(width, 3 * width)

    def initialise(self, random: torch.Generator) -> None:
        """Everything even in +-1 / sqrt(R), as torch.nn.GRU."""
        bound = self.states**-0.5
        options: JSON = {"generator": random}
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound, **options)

    def forward(
        self, x: Float[Tensor, "B T R"], starts: Flags, h0: Float[Tensor, "B R"]
    ) -> tuple[Float[Tensor, "B T R"], Float[Tensor, "B T R"]]:
        """Outputs and states after h0, which are the same; at `starts` the past is forgotten."""
        hs = gru(self.from_x(x), self.from_h.weight, self.from_h.bias, starts, h0)
        return hs, hs
