"""RG-LRU, the Real-Gated Linear Recurrent Unit (De et al. 2024, Griffin, section 2.4).

    r_t = sigmoid(W_a x_t + b_a)                       eq. 1, recurrence gate       a_gate
    i_t = sigmoid(W_x x_t + b_x)                       eq. 2, input gate            x_gate
    a_t = a^(c r_t),  log a = -softplus(Lambda), c = 8 eq. 3                        Lambda
    h_t = a_t h_{t-1} + sqrt(1 - a_t^2) (i_t x_t)      eq. 4

Lambda has the sign of the published code: a = sigmoid(-Lambda). The complex-gated form (appendix B)
turns the state by an angle as well: a_t = exp(log a_t + i theta r_t).
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..layers import halves
from ..layers.block_diagonal import BlockDiagonal
from ..ops import native
from ..ops.conv_gates import conv_gates
from ..ops.gated_recurrence import gated_rg_lru
from ..ops.rg_lru import decay_rate, rg_lru
from ..ops.rg_lru.complex_gated import complex_rg_lru
from ..ops.rg_lru.definition import C
from ..shapes import Flags, Hidden
from .base import MixerConfig, Span, require
from .recurrent_block import RecurrentBlock, RecurrentState

RING = (0.9, 0.999)  # where the decays lie at the start: long memory, yet stable
MAX_PHASE = 0.1 * math.pi  # where theta lies at the start, as in DeepMind's JAX code


@dataclass(frozen=True, kw_only=True)
class RGLRU(MixerConfig):
    """Settings of a recurrent block around an RG-LRU.

    width: channels of the recurrence; heads: blocks of the gates; conv_width: taps of the conv.
    lambda_init: "code" draws a^2 evenly in the ring [0.9^2, 0.999^2] as the published code does;
    "paper" draws a^c in [0.9, 0.999] as the paper says, which remembers 8 times longer.
    gate_init: variance 1 / fan-in of a "block" (paper, DeepMind's torch) or of the "full" width
    (its JAX).
    complex: half the channels are real parts, the other half imaginary ones, and a gate acts on
    both parts of a number (appendix B); no released checkpoint has it.
    """

    kind: ClassVar[str] = "rg_lru"
    only_initial: ClassVar[frozenset[str]] = frozenset({"lambda_init", "gate_init"})
    later: ClassVar[frozenset[str]] = frozenset({"complex"})
    width: int
    heads: int
    conv_width: int = 4
    lambda_init: str = "code"
    gate_init: str = "block"
    complex: bool = False

    def __post_init__(self) -> None:
        require(self.width > 0 and self.heads > 0, "rg_lru.width and rg_lru.heads must be positive")
        require(
            self.width % self.heads == 0,
            f"rg_lru.width {self.width} is not a multiple of rg_lru.heads {self.heads}",
        )
        require(
            not self.complex or self.width % (2 * self.heads) == 0,
            f"rg_lru.width {self.width} is not a multiple of twice rg_lru.heads {self.heads}, "
            "which complex gates need",
        )
        require(self.conv_width >= 2, f"rg_lru.conv_width must be 2 or more, not {self.conv_width}")
        require(
            self.lambda_init in ("code", "paper"),
            f'rg_lru.lambda_init must be "code" or "paper", not {self.lambda_init!r}',
        )
        require(
            self.gate_init in ("block", "full"),
            f'rg_lru.gate_init must be "block" or "full", not {self.gate_init!r}',
        )

    def build(self, width: int) -> RecurrentBlock:
        """A recurrent block whose cell is an RG-LRU."""
        return RGLRUBlock(width, self.width, self.conv_width, RGLRUCell(self))


class RGLRUCell(nn.Module):
    """The recurrence alone: (B, T, R) in; its states h (B, T, R), in fp32, are its outputs."""

    def __init__(self, config: RGLRU) -> None:
        super().__init__()
        self.config = config
        self.states = config.width
        numbers = config.width // 2 if config.complex else config.width
        self.a_gate = BlockDiagonal(config.width, config.heads, numbers)
        self.x_gate = BlockDiagonal(config.width, config.heads, numbers)
        self.Lambda = nn.Parameter(torch.empty(numbers))
        if config.complex:
            self.theta = nn.Parameter(torch.empty(numbers))

    def initialise(self, random: torch.Generator) -> None:
        """Gates by `gate_init`, Lambda by `lambda_init`; theta even in [0, 0.1 pi]."""
        config = self.config
        fan_in = config.width // (config.heads if config.gate_init == "block" else 1)
        self.a_gate.initialise(fan_in, random)
        self.x_gate.initialise(fan_in, random)
        low, high = RING
        u = torch.rand(self.Lambda.shape, generator=random, dtype=torch.float64).to(
            self.Lambda.device
        )
        if config.lambda_init == "code":
            log_a = 0.5 * torch.log(low**2 + u * (high**2 - low**2))
        else:
            log_a = torch.log(low + u * (high - low)) / C
        with torch.no_grad():
            self.Lambda.copy_(torch.log(torch.expm1(-log_a)))  # softplus(Lambda) = -log a
            if config.complex:
                self.theta.copy_(MAX_PHASE * torch.rand(self.theta.shape, generator=random))

    def forward(
        self, x: Float[Tensor, "B T R"], starts: Flags, h0: Float[Tensor, "B R"]
    ) -> tuple[Float[Tensor, "B T R"], Float[Tensor, "B T R"]]:
        """Outputs and states after h0, which are the same; at `starts` the past is forgotten."""
        r, i = self.a_gate(x), self.x_gate(x)
        if self.config.complex:
            hs = complex_rg_lru(x, r, i, self.Lambda, self.theta, starts, h0)
        else:
            hs = rg_lru(x, r, i, self.Lambda, starts, h0)
        return hs, hs


class RGLRUBlock(RecurrentBlock):
    """The recurrent block around an RG-LRU; its half of a residual block may be one call."""

    cell: RGLRUCell

    def fused(
        self, norm: nn.Module, x: Hidden, span: Span, state: RecurrentState
    ) -> tuple[Hidden, RecurrentState] | None:
        """See Mixer.fused."""
        if not span.whole or not halves.plain(state.h, torch.float32):
            return None
        if not halves.plain(state.conv, x.dtype):
            return None
        described = halves.described(x, self, norm, self._describe)
        if described is None:
            return None
        facts = span.starts.contiguous(), span.position.contiguous()
        out, h, conv = native.recurrent_half(described, x, *facts, state.h, state.conv)
        return out, RecurrentState(h, conv)

    def recurrence(
        self,
        u: Hidden,
        past: Float[Tensor, "B P R"],
        y: Hidden,
        span: Span,
        h0: Float[Tensor, "B S"],
    ) -> tuple[Hidden, Float[Tensor, "B S"]]:
        """See RecurrentBlock.recurrence; in two operations, if no module is watched meanwhile."""
        cell = self.cell
        modules = ((cell, RGLRUCell), (cell.a_gate, BlockDiagonal), (cell.x_gate, BlockDiagonal))
        if cell.config.complex or any(halves.watched(*each) for each in modules):
            return super().recurrence(u, past, y, span, h0)
        (a, x), conv = (cell.a_gate, cell.x_gate), self.conv.weights(u.dtype)
        mixed, r, i = conv_gates(u, past, *conv, span.position, a.w, a.b, x.w, x.b)
        counts = None if span.whole else span.counts
        return gated_rg_lru(mixed, r, i, y, cell.Lambda, span.starts, h0, counts)

    def _describe(self, words: halves.Description) -> None:
        for name in ("linear_x", "linear_y", "linear_out"):
            words.matrix(self, name)
        cell = words.child(self, "cell")
        words.unwatched(cell, RGLRUCell)
        conv = words.child(self, "conv")
        w, b = (words.tensor(conv, name, words.dtype) for name in ("w", "b"))
        words.word(w.data_ptr(), b.data_ptr(), w.shape[0], self.cell.config.heads)
        if self.cell.config.complex:
            raise halves.Unfit
        words.blocks(cell, "a_gate")
        words.blocks(cell, "x_gate")
        Lambda = words.tensor(cell, "Lambda", *halves.EITHER)
        words.word(words.derived(Lambda, decay_rate(Lambda)).data_ptr())
