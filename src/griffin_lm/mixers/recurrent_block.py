"""The recurrent block around a cell (Griffin, section 2.3, figure 2): gelu(y) * cell(conv(x)).

Every recurrent cell stands in this same block (RG-LRU, LRU, GRU), so an ablation changes the cell
and nothing else.
"""

from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..layers.linear import Linear
from ..ops.causal_conv import causal_conv, last_inputs
from ..ops.gating import gated
from ..ops.last import last_valid
from ..precision import accumulation
from ..shapes import JSON, Flags, Hidden
from .base import Mixer, Span


class RecurrentState(NamedTuple):
    """h (B, S) in fp32: small updates must not round away; conv (B, C-1, R): the last inputs.

    S is the cell's `states`: R for most. A complex state is kept as twice as many real numbers,
    which every file format and device knows.
    """

    h: Float[Tensor, "B S"]
    conv: Float[Tensor, "B P R"]


@runtime_checkable
class Cell(Protocol):
    """What the block asks of a recurrent cell."""

    @property
    def states(self) -> int:
        """Real numbers in its state."""
        ...

    def initialise(self, random: torch.Generator) -> None:
        """Random weights."""
        ...

    def __call__(self, x: Tensor, starts: Flags, h0: Tensor) -> tuple[Tensor, Tensor]:
        """From x (B, T, R) and h0 (B, S): outputs (B, T, R), and all states (B, T, S) in fp32."""
        ...


class CausalConv(nn.Module):
    """The weights of the depthwise conv: w (C, R), whose last row meets the newest token, b."""

    def __init__(self, taps: int, width: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.empty(taps, width))
        self.b = nn.Parameter(torch.empty(width))

    def weights(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """w and b in a dtype."""
        return self.w.to(dtype), self.b.to(dtype)

    def initialise(self, random: torch.Generator) -> None:
        """w normal with variance 0.01 / taps (as DeepMind's code), b = 0."""
        options: JSON = {"generator": random}
        nn.init.normal_(self.w, std=(0.01 / self.w.shape[0]) ** 0.5, **options)
        nn.init.zeros_(self.b)


class RecurrentBlock(Mixer):
    """out = W_out (cell(conv(W_x x)) * gelu(W_y x)); linear maps with biases."""

    def __init__(self, width: int, inner: int, taps: int, cell: nn.Module) -> None:
        super().__init__()
        self.linear_x = Linear(width, inner)
        self.linear_y = Linear(width, inner)
        self.conv = CausalConv(taps, inner)
        self.cell = cell
        self.linear_out = Linear(inner, width)

    def initialise(self, depth: int, random: torch.Generator) -> None:
        """Variance 1 / fan-in, and 2 / (depth * fan-in) on the way out."""
        options: JSON = {"generator": random}
        for linear in (self.linear_x, self.linear_y):
            nn.init.normal_(linear.weight, std=linear.in_features**-0.5, **options)
        nn.init.normal_(
            self.linear_out.weight, std=(2 / depth / self.linear_out.in_features) ** 0.5, **options
        )
        for linear in (self.linear_x, self.linear_y, self.linear_out):
            nn.init.zeros_(linear.bias)
        self.conv.initialise(random)
        self._cell.initialise(random)

    @property
    def _cell(self) -> Cell:
        return self.cell  # pyright: ignore[reportReturnType]

    def empty_state(self, batch: int, device: torch.device, dtype: torch.dtype) -> RecurrentState:
        """Zeros: h in fp32, conv in the dtype of the activations."""
        taps, inner = self.conv.w.shape
        h = torch.zeros(batch, self._cell.states, dtype=accumulation(dtype), device=device)
        return RecurrentState(h, torch.zeros(batch, taps - 1, inner, dtype=dtype, device=device))

    def forward(
        self, x: Hidden, span: Span, state: RecurrentState
    ) -> tuple[Hidden, RecurrentState]:
        """See Mixer.forward."""
        u, y = self.linear_x(x), self.linear_y(x)
        past = state.conv.to(u.dtype)
        product, h = self.recurrence(u, past, y, span, state.h)
        conv = last_inputs(u, past, None if span.whole else span.counts).to(state.conv.dtype)
        return self.linear_out(product), RecurrentState(h, conv)

    def recurrence(
        self,
        u: Hidden,
        past: Float[Tensor, "B P R"],
        y: Hidden,
        span: Span,
        h0: Float[Tensor, "B S"],
    ) -> tuple[Hidden, Float[Tensor, "B S"]]:
        """gelu(y) * cell(conv(u)), and the cell's state after each row's valid tokens.

        past: the inputs before u. For a cell with kernels of its own to take more of it at once.
        """
        mixed = causal_conv(u, past, *self.conv.weights(u.dtype), span.position)
        out, hs = self._cell(mixed, span.starts, h0)
        return gated(y, out, "gelu"), last_valid(hs, None if span.whole else span.counts, h0)
