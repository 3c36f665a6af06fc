"""Global attention: multi-head, grouped-query or multi-query (Vaswani 2017; Ainslie 2023; Shazeer
2019), with rotary positions. Its state is a cache of keys and values that grows with the document.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..layers.linear import Linear
from ..layers.rope import RopeScaling, rotary_angles, rotate
from ..ops.attention.cache import with_slots, write_slots
from ..ops.attention.causal import causal_attention, next_token_attention
from ..shapes import JSON, Hidden
from .base import Mixer, MixerConfig, Span, longest, require

STEP = 256  # slots by which a cache grows: see docs/decisions on the growing cache


@dataclass(frozen=True, kw_only=True)
class GlobalAttention(MixerConfig):
    """Settings of causal attention over the whole document.

    heads, head_dim: query heads and their width. kv_heads: key/value heads; `heads` of them make
    multi-head, 1 makes multi-query, a number between grouped-query attention.
    rope_base, rope_fraction: rotary frequencies, and the share of each head that turns (0: none).
    rope_factor, rope_low, rope_high, rope_context: Llama 3.1's scaling of slow frequencies, see
    layers.rope.RopeScaling; a factor of 1 is none. out_bias: the output projection has a bias.
    """

    kind: ClassVar[str] = "global_attention"
    heads: int
    head_dim: int
    kv_heads: int = 1
    rope_base: float = 10_000.0
    rope_fraction: float = 1.0
    rope_factor: float = 1.0
    rope_low: float = 1.0
    rope_high: float = 4.0
    rope_context: int = 8192
    out_bias: bool = False

    def __post_init__(self) -> None:
        for name in ("heads", "head_dim", "kv_heads", "rope_context", "rope_low"):
            require(getattr(self, name) > 0, f"global_attention.{name} must be positive")
        require(
            self.heads % self.kv_heads == 0,
            f"global_attention.heads {self.heads} is not a multiple of kv_heads {self.kv_heads}",
        )
        require(
            self.rope_base > 1, f"global_attention.rope_base must exceed 1, not {self.rope_base}"
        )
        require(
            0 <= self.rope_fraction <= 1 and self.rotary_width % 2 == 0,
            f"global_attention.rope_fraction {self.rope_fraction} of head_dim {self.head_dim} "
            "must be an even number of dimensions",
        )
        require(
            self.rope_factor >= 1,
            f"global_attention.rope_factor must be 1 or more, not {self.rope_factor}",
        )
        require(
            self.rope_high > self.rope_low,
            f"global_attention.rope_high {self.rope_high} must exceed rope_low {self.rope_low}",
        )

    @property
    def rotary_width(self) -> int:
        """Dimensions of each head that turn with the position."""
        return int(self.head_dim * self.rope_fraction)

    @property
    def scaling(self) -> RopeScaling | None:
        """The scaling of frequencies, if any."""
        if self.rope_factor == 1:
            return None
        return RopeScaling(self.rope_factor, self.rope_low, self.rope_high, self.rope_context)

    def bytes_per_token(self, dtype: torch.dtype) -> int:
        """A key and a value for every key/value head."""
        return 2 * self.kv_heads * self.head_dim * dtype.itemsize

    def build(self, width: int) -> "GlobalAttentionMixer":
        """The mixer for a residual stream of this width."""
        return GlobalAttentionMixer(width, self)


class CacheState(NamedTuple):
    """k, v (B, N, K, D): slot n holds the n-th token of the row's document; k is already rotated.

    N is the capacity, in whole steps; slots from the row's position on mean nothing.
    """

    k: Float[Tensor, "B N K D"]
    v: Float[Tensor, "B N K D"]

    grows = True  # along N: see base.capacity


class GlobalAttentionMixer(Mixer):
    """q, k, v without biases; scores scaled by 1 / sqrt(D)."""

    cache_step = STEP

    def __init__(self, width: int, config: GlobalAttention) -> None:
        super().__init__()
        self.config = config
        inner, shared = config.heads * config.head_dim, config.kv_heads * config.head_dim
        self.q = Linear(width, inner, bias=False)
        self.k = Linear(width, shared, bias=False)
        self.v = Linear(width, shared, bias=False)
        self.out = Linear(inner, width, bias=config.out_bias)

    def initialise(self, depth: int, random: torch.Generator) -> None:
        """Variance 1 / fan-in, and 2 / (depth * fan-in) on the way out."""
        options: JSON = {"generator": random}
        for linear in (self.q, self.k, self.v):
            nn.init.normal_(linear.weight, std=linear.in_features**-0.5, **options)
        nn.init.normal_(self.out.weight, std=(2 / depth / self.out.in_features) ** 0.5, **options)
        if self.config.out_bias:
            nn.init.zeros_(self.out.bias)

    def empty_state(self, batch: int, device: torch.device, dtype: torch.dtype) -> CacheState:
        """A cache without a slot, in the dtype of the activations."""
        shape = (batch, 0, self.config.kv_heads, self.config.head_dim)
        return CacheState(
            torch.zeros(shape, dtype=dtype, device=device),
            torch.zeros(shape, dtype=dtype, device=device),
        )

    def forward(self, x: Hidden, span: Span, state: CacheState) -> tuple[Hidden, CacheState]:
        """See Mixer.forward."""
        config = self.config
        q, k, v = (
            linear(x).unflatten(-1, (-1, config.head_dim)) for linear in (self.q, self.k, self.v)
        )
        if config.rotary_width:
            angles = rotary_angles(
                span.position, config.rotary_width, config.rope_base, config.scaling
            )
            q, k = rotate(q, angles), rotate(k, angles)
        if x.shape[1] == 1:  # all that the token may see is in the cache once it is there itself
            after = self._written(state, k, v, span)
            held = (after.k.to(k.dtype), after.v.to(v.dtype))
            mixed = next_token_attention(q, *held, span.position)
        else:  # first look, then write: a document may end in this call, and its slots be taken
            held = (state.k.to(k.dtype), state.v.to(v.dtype))
            mixed = causal_attention(q, k, v, *held, span.position)
            after = self._written(state, k, v, span)
        return self.out(mixed.flatten(-2)), after

    def _written(self, state: CacheState, k: Tensor, v: Tensor, span: Span) -> CacheState:
        """The caches after the call, in more slots if it needs them."""
        needed = span.slots if span.slots is not None else longest(span.ends())
        slots = max(state.k.shape[1], -(-needed // self.cache_step) * self.cache_step)
        caches: list[Tensor] = []
        for cache, new in ((state.k, k), (state.v, v)):
            # what a graph of gradients may still need is never written over
            tracked = torch.is_grad_enabled() and (cache.requires_grad or new.requires_grad)
            roomy, donated = with_slots(cache, slots), span.donate and not tracked
            caches.append(
                write_slots(roomy, new.to(cache.dtype), span.position, span.counts, donated)
            )
        return CacheState(*caches)
