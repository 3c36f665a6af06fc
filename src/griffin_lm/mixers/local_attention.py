"""Local multi-query attention with rotary positions (Griffin, section 2.3; Beltagy et al. 2020)."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int8
from torch import Tensor, nn

from ..layers import halves
from ..layers.linear import Linear
from ..layers.rope import rotary_angles, rotate
from ..ops import native
from ..ops.attention import windowed_attention, write_ring
from ..ops.attention.rounded import Rounded, rounded, rounded_attention, write_rounded
from ..precision import accumulation
from ..shapes import JSON, Hidden
from .base import Mixer, MixerConfig, Span, require


@dataclass(frozen=True, kw_only=True)
class LocalAttention(MixerConfig):
    """Settings of sliding-window attention.

    heads, head_dim: query heads and their width; kv_heads: key/value heads (1: multi-query).
    window: earlier tokens visible besides the token itself (2048 sees 2049 keys).
    rope_base, rope_fraction: rotary frequencies, and the share of each head that turns.
    """

    kind: ClassVar[str] = "local_attention"
    heads: int
    head_dim: int
    window: int
    kv_heads: int = 1
    rope_base: float = 10_000.0
    rope_fraction: float = 0.5

    def __post_init__(self) -> None:
        for name in ("heads", "head_dim", "window", "kv_heads"):
            require(getattr(self, name) > 0, f"local_attention.{name} must be positive")
        require(
            self.heads % self.kv_heads == 0,
            f"local_attention.heads {self.heads} is not a multiple of kv_heads {self.kv_heads}",
        )
        require(
            self.rope_base > 1, f"local_attention.rope_base must exceed 1, not {self.rope_base}"
        )
        require(
            0 <= self.rope_fraction <= 1 and self.rotary_width % 2 == 0,
            f"local_attention.rope_fraction {self.rope_fraction} of head_dim {self.head_dim} "
            "must be an even number of dimensions",
        )

    @property
    def rotary_width(self) -> int:
        """Dimensions of each head that turn with the position."""
        return int(self.head_dim * self.rope_fraction)

    def build(self, width: int) -> "LocalAttentionMixer":
        """The mixer for a residual stream of this width."""
        return LocalAttentionMixer(width, self)


class AttentionState(NamedTuple):
    """k, v (B, N, K, D): a ring of the last N = window tokens; k is already rotated."""

    k: Float[Tensor, "B N K D"]
    v: Float[Tensor, "B N K D"]


class RoundedState(NamedTuple):
    """The same ring in int8; k_scale, v_scale (B, N, K, 1) fp32: of each token and key head."""

    k: Int8[Tensor, "B N K D"]
    k_scale: Float[Tensor, "B N K 1"]
    v: Int8[Tensor, "B N K D"]
    v_scale: Float[Tensor, "B N K 1"]


class LocalAttentionMixer(Mixer):
    """q, k, v without biases, the output projection with one; scores scaled by 1 / sqrt(D).

    cache: "auto" keeps keys and values in the dtype of the activations, "int8" rounded. It says
    what an empty state is; a call goes by the state that it is given.
    """

    cache = "auto"

    def __init__(self, width: int, config: LocalAttention) -> None:
        super().__init__()
        self.config = config
        inner, shared = config.heads * config.head_dim, config.kv_heads * config.head_dim
        self.q = Linear(width, inner, bias=False)
        self.k = Linear(width, shared, bias=False)
        self.v = Linear(width, shared, bias=False)
        self.out = Linear(inner, width)

    def initialise(self, depth: int, random: torch.Generator) -> None:
        """Variance 1 / fan-in, and 2 / (depth * fan-in) on the way out."""
        options: JSON = {"generator": random}
        for linear in (self.q, self.k, self.v):
            nn.init.normal_(linear.weight, std=linear.in_features**-0.5, **options)
        nn.init.normal_(self.out.weight, std=(2 / depth / self.out.in_features) ** 0.5, **options)
        nn.init.zeros_(self.out.bias)

    def empty_state(
        self, batch: int, device: torch.device, dtype: torch.dtype
    ) -> AttentionState | RoundedState:
        """A ring of zeros, in the dtype of the activations or int8: of full size from the first."""
        shape = (batch, self.config.window, self.config.kv_heads, self.config.head_dim)
        if self.cache == "int8":
            kinds = ((shape, torch.int8), ((*shape[:3], 1), torch.float32)) * 2
            return RoundedState(*(torch.zeros(s, dtype=kind, device=device) for s, kind in kinds))
        return AttentionState(
            torch.zeros(shape, dtype=dtype, device=device),
            torch.zeros(shape, dtype=dtype, device=device),
        )

    def fused(
        self, norm: nn.Module, x: Hidden, span: Span, state: AttentionState | RoundedState
    ) -> tuple[Hidden, AttentionState] | None:
        """See Mixer.fused."""
        if (
            isinstance(state, RoundedState)
            or not span.whole
            or span.reach is not None
            or x.shape[1] > self.config.window
        ):
            return None
        if not all(halves.plain(ring, x.dtype) for ring in state):
            return None
        described = halves.described(x, self, norm, self._describe)
        if described is None:
            return None
        rings = state if span.donate else AttentionState(state.k.clone(), state.v.clone())
        angles = self._angles(span, torch.float32)
        facts = span.read, span.position.contiguous(), span.counts
        return native.attention_half(described, x, angles, rings, *facts), rings

    def _describe(self, words: halves.Description) -> None:
        for name in ("q", "k", "v", "out"):
            words.matrix(self, name)
        words.word(self.config.heads, self.config.kv_heads, self.config.head_dim)

    def _angles(self, span: Span, dtype: torch.dtype) -> tuple[Tensor, Tensor] | None:
        """cos and sin of the call's positions; None where nothing turns."""
        width, base = self.config.rotary_width, self.config.rope_base
        if not width:
            return None

        def make() -> tuple[Tensor, Tensor]:
            cos, sin = rotary_angles(span.position, width, base)
            return cos.to(dtype), sin.to(dtype)

        return span.once(("rotary", width, base, dtype), make)

    def forward(
        self, x: Hidden, span: Span, state: AttentionState | RoundedState
    ) -> tuple[Hidden, AttentionState | RoundedState]:
        """See Mixer.forward."""
        config = self.config
        q, k, v = (
            linear(x).unflatten(-1, (-1, config.head_dim)) for linear in (self.q, self.k, self.v)
        )
        angles = self._angles(span, accumulation(x.dtype))
        if angles is not None:
            q, k = rotate(q, angles), rotate(k, angles)
        if isinstance(state, RoundedState):
            mixed, after = self._over_rounded(q, k, v, span, state)
        else:
            ring_k, ring_v = state.k.to(k.dtype), state.v.to(v.dtype)
            mixed = windowed_attention(
                q, k, v, ring_k, ring_v, span.read, span.position, span.reach
            )
            after = AttentionState(
                *(
                    write_ring(ring, new.to(ring.dtype), span.read, span.counts, span.donate)
                    for ring, new in ((state.k, k), (state.v, v))
                )
            )
        return self.out(mixed.flatten(-2)), after

    def _over_rounded(
        self, q: Tensor, k: Tensor, v: Tensor, span: Span, state: RoundedState
    ) -> tuple[Tensor, RoundedState]:
        new_k, new_v = rounded(k), rounded(v)
        ring_k, ring_v = Rounded(state.k, state.k_scale), Rounded(state.v, state.v_scale)
        facts = span.read, span.position, span.reach
        mixed = rounded_attention(q, new_k, new_v, ring_k, ring_v, *facts)
        written = (span.read, span.counts, span.donate)
        after_k = write_rounded(ring_k, new_k, *written)
        return mixed, RoundedState(*after_k, *write_rounded(ring_v, new_v, *written))
