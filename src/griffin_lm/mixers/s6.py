"""S6, the selective state space model in Mamba's block (Gu and Dao 2023, sections 3.2 to 3.4).

    [u, z]        = W_in x                                      linear_in     no bias
    u             = SiLU(conv(u))                               conv          depthwise, causal
    [d, B_t, C_t] = W_x u                                       select        no bias
    delta_t       = softplus(W_dt d + b_dt)                     step
    h_t           = exp(delta_t A) h_{t-1} + delta_t B_t u_t    A = -exp(A_log)
    y_t           = C_t h_t + D u_t
    out           = W_out (y_t SiLU(z))                         linear_out    no bias

The block brings its own conv and gate: in Mamba it stands without an MLP, two of them in place of
attention and MLP. At a document's first token h_{t-1} is dropped whatever delta is, and the taps of
the conv reach no further back; the published code has neither.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear, silu, softplus

from ..layers.linear import Linear
from ..layers.wide import KeepsWide
from ..ops.causal_conv import causal_conv, last_inputs
from ..ops.selective_scan import selective_scan
from ..precision import accumulation
from ..shapes import JSON, Hidden
from .base import Mixer, MixerConfig, Span, require
from .recurrent_block import CausalConv

STEP_FLOOR = 1e-4  # the smallest delta that W_dt's bias asks for at the start, as in Mamba's code


@dataclass(frozen=True, kw_only=True)
class S6(MixerConfig):
    """Settings of Mamba's block.

    width: channels E of the recurrence (Mamba: twice the model's width); states: N of each channel;
    rank: of the map to delta (Mamba: the model's width / 16, rounded up); conv_width: taps.
    step_min, step_max: where delta lies at the start, evenly on a log scale.
    """

    kind: ClassVar[str] = "s6"
    only_initial: ClassVar[frozenset[str]] = frozenset({"step_min", "step_max"})
    width: int
    rank: int
    states: int = 16
    conv_width: int = 4
    step_min: float = 1e-3
    step_max: float = 0.1

    def __post_init__(self) -> None:
        for name in ("width", "rank", "states"):
            require(getattr(self, name) > 0, f"s6.{name} must be positive")
        require(self.conv_width >= 2, f"s6.conv_width must be 2 or more, not {self.conv_width}")
        require(
            0 < self.step_min <= self.step_max,
            f"s6 must have 0 < step_min <= step_max, not {self.step_min} and {self.step_max}",
        )

    def build(self, width: int) -> "S6Mixer":
        """The mixer for a residual stream of this width."""
        return S6Mixer(width, self)


class S6State(NamedTuple):
    """h (B, E, N) in fp32; conv (B, C-1, E): the last inputs (Mamba's code keeps C, one unused)."""

    h: Float[Tensor, "B E N"]
    conv: Float[Tensor, "B P E"]


class S6Mixer(KeepsWide, Mixer):
    """Mamba's block; from delta on all is computed in fp32, and A_log and D are kept in it."""

    wide = frozenset({"A_log", "D"})
    uncalled = frozenset({"step"})  # linear maps whose weights are multiplied here, not called

    def __init__(self, width: int, config: S6) -> None:
        super().__init__()
        self.config = config
        inner, states = config.width, config.states
        self.linear_in = Linear(width, 2 * inner, bias=False)
        self.conv = CausalConv(config.conv_width, inner)
        self.select = nn.Linear(inner, config.rank + 2 * states, bias=False)
        self.step = nn.Linear(config.rank, inner)
        self.A_log = nn.Parameter(torch.empty(inner, states))
        self.D = nn.Parameter(torch.empty(inner))
        self.linear_out = Linear(inner, width, bias=False)

    def initialise(self, depth: int, random: torch.Generator) -> None:
        """As Mamba's code: A_n = -n (S4D-real), D = 1, delta log-uniform; see docs/notation.md."""
        config = self.config
        options: JSON = {"generator": random}
        for weight, bound in (
            (self.linear_in.weight, self.linear_in.in_features**-0.5),
            (self.select.weight, config.width**-0.5),
            (self.linear_out.weight, (depth * config.width) ** -0.5),
            (self.step.weight, config.rank**-0.5),
            (self.conv.w, config.conv_width**-0.5),
        ):
            nn.init.uniform_(weight, -bound, bound, **options)
        nn.init.zeros_(self.conv.b)
        low, high = math.log(config.step_min), math.log(config.step_max)
        even = torch.rand(config.width, generator=random, dtype=torch.float64)
        steps = torch.exp(low + even * (high - low)).clamp(min=STEP_FLOOR)
        with torch.no_grad():
            self.step.bias.copy_(steps + torch.log(-torch.expm1(-steps)))  # softplus inverted
            self.A_log.copy_(torch.arange(1, config.states + 1).double().log())
        nn.init.ones_(self.D)

    def empty_state(self, batch: int, device: torch.device, dtype: torch.dtype) -> S6State:
        """Zeros: h in fp32, conv in the dtype of the activations."""
        inner, states = self.A_log.shape
        h = torch.zeros(batch, inner, states, dtype=accumulation(dtype), device=device)
        taps = self.conv.w.shape[0]
        return S6State(h, torch.zeros(batch, taps - 1, inner, dtype=dtype, device=device))

    def forward(self, x: Hidden, span: Span, state: S6State) -> tuple[Hidden, S6State]:
        """See Mixer.forward."""
        config, dtype = self.config, accumulation(x.dtype)
        here = torch.arange(x.shape[1], device=x.device) < span.counts[:, None]
        inputs, z = self.linear_in(x).chunk(2, dim=-1)
        past = state.conv.to(inputs.dtype)
        w, b = self.conv.w.to(inputs.dtype), self.conv.b.to(inputs.dtype)
        # padding is made 0 here: with a delta of 0 besides, it leaves the state to the bit
        u = silu(causal_conv(inputs, past, w, b, span.position)).masked_fill(~here[..., None], 0)
        d, B, C = self.select(u).split([config.rank, config.states, config.states], dim=-1)
        step = linear(d, self.step.weight).to(dtype) + self.step.bias.to(dtype)
        delta = softplus(step).masked_fill(~here[..., None], 0)
        A, wide = -self.A_log.to(dtype).exp(), u.to(dtype)
        starts = span.starts & here
        y, h = selective_scan(wide, delta, A, B.to(dtype), C.to(dtype), starts, state.h)
        y = (y + self.D.to(dtype) * wide) * silu(z.to(dtype))
        after = S6State(
            h, last_inputs(inputs, past, None if span.whole else span.counts).to(state.conv.dtype)
        )
        return self.linear_out(y.to(x.dtype)), after
