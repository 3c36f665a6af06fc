"""LRU, the Linear Recurrent Unit (Orvieto et al. 2023, section 3), a cell of the recurrent block.

    lambda = exp(-exp(nu) + i exp(theta))                        a complex diagonal, |lambda| < 1
    h_t    = lambda h_{t-1} + exp(gamma) (B u_t)                 N complex states
    y_t    = Re(C h_t) + D u_t

Its decays do not depend on the input: beside RG-LRU it shows what the gates are worth. The paper's
own block (norm, LRU, GELU, GLU) is not this one; here the cell stands where RG-LRU stands.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear

from ..layers.wide import KeepsWide
from ..ops.linear_scan import linear_scan
from ..precision import accumulation
from ..shapes import JSON, Flags
from .base import MixerConfig, require
from .recurrent_block import RecurrentBlock


@dataclass(frozen=True, kw_only=True)
class LRU(MixerConfig):
    """Settings of a recurrent block around an LRU.

    width: channels in and out; states: N complex numbers inside; conv_width: taps of the conv.
    r_min, r_max, max_phase: at the start lambda lies evenly (by area) in the ring between these two
    radii, at angles up to max_phase; the paper narrows that to pi / 10 for its longest tasks.
    """

    kind: ClassVar[str] = "lru"
    only_initial: ClassVar[frozenset[str]] = frozenset({"r_min", "r_max", "max_phase"})
    width: int
    states: int
    conv_width: int = 4
    r_min: float = 0.9
    r_max: float = 0.999
    max_phase: float = 2 * math.pi

    def __post_init__(self) -> None:
        require(self.width > 0 and self.states > 0, "lru.width and lru.states must be positive")
        require(self.conv_width >= 2, f"lru.conv_width must be 2 or more, not {self.conv_width}")
        require(
            0 <= self.r_min < self.r_max < 1,
            f"lru must have 0 <= r_min < r_max < 1, not r_min {self.r_min}, r_max {self.r_max}",
        )
        require(
            0 < self.max_phase <= 2 * math.pi,
            f"lru.max_phase must lie in (0, 2 pi], not {self.max_phase}",
        )

    def build(self, width: int) -> RecurrentBlock:
        """A recurrent block whose cell is an LRU."""
        return RecurrentBlock(width, self.width, self.conv_width, LRUCell(self))


class LRUCell(KeepsWide):
    """The recurrence alone. Its complex states are kept as pairs of real numbers, re before im.

    B_re, B_im (N, R) and C_re, C_im (R, N) are B and C; nu, theta, gamma (N,); D (R,).
    """

    wide = frozenset({"nu", "theta", "gamma"})  # an angle is applied at every one of T steps

    def __init__(self, config: LRU) -> None:
        super().__init__()
        self.config = config
        self.states = 2 * config.states
        width, states = config.width, config.states
        self.nu = nn.Parameter(torch.empty(states))
        self.theta = nn.Parameter(torch.empty(states))
        self.gamma = nn.Parameter(torch.empty(states))
        self.B_re = nn.Parameter(torch.empty(states, width))
        self.B_im = nn.Parameter(torch.empty(states, width))
        self.C_re = nn.Parameter(torch.empty(width, states))
        self.C_im = nn.Parameter(torch.empty(width, states))
        self.D = nn.Parameter(torch.empty(width))

    def initialise(self, random: torch.Generator) -> None:
        """The ring; gamma = log sqrt(1 - |lambda|^2); Glorot B and C; D standard normal."""
        config, shape = self.config, self.nu.shape
        options: JSON = {"generator": random}
        # 1 - rand lies in (0, 1]: no logarithm of 0
        area = 1 - torch.rand(shape, generator=random, dtype=torch.float64)
        turn = 1 - torch.rand(shape, generator=random, dtype=torch.float64)
        low, high = config.r_min, config.r_max
        decay = -0.5 * torch.log(area * (high**2 - low**2) + low**2)  # -log |lambda|
        with torch.no_grad():
            self.nu.copy_(decay.log())
            self.theta.copy_((config.max_phase * turn).log())
            self.gamma.copy_(0.5 * (-torch.expm1(-2 * decay)).log())
        for matrix in (self.B_re, self.B_im):
            nn.init.normal_(matrix, std=(2 * config.width) ** -0.5, **options)
        for matrix in (self.C_re, self.C_im):
            nn.init.normal_(matrix, std=config.states**-0.5, **options)
        nn.init.normal_(self.D, **options)

    def forward(
        self, x: Float[Tensor, "B T R"], starts: Flags, h0: Float[Tensor, "B S"]
    ) -> tuple[Float[Tensor, "B T R"], Float[Tensor, "B T S"]]:
        """Outputs in x's dtype, and states after h0; at `starts` the past is forgotten.

        S = 2 N: re and im of state 0, of state 1, and so on.
        """
        dtype = accumulation(x.dtype)
        nu, theta, gamma = (each.to(dtype) for each in (self.nu, self.theta, self.gamma))
        into = torch.stack([self.B_re, self.B_im], dim=1).flatten(0, 1)  # (S, R)
        out = torch.stack([self.C_re, -self.C_im], dim=2).flatten(1)  # (R, S): Re(C h)
        drive = linear(x, into.to(x.dtype)).to(dtype).unflatten(-1, (-1, 2)) * gamma.exp()[:, None]
        decay = torch.exp(torch.complex(-nu.exp(), theta.exp()))
        decays = decay.expand(*x.shape[:2], -1).masked_fill(starts[..., None], 0)
        before = torch.view_as_complex(h0.unflatten(-1, (-1, 2)).contiguous())
        hs = linear_scan(torch.view_as_complex(drive), decays, before)
        pairs = torch.view_as_real(hs).flatten(-2)
        return linear(pairs.to(x.dtype), out.to(x.dtype)) + self.D.to(x.dtype) * x, pairs
