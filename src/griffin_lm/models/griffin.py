"""The whole model: embedding, residual blocks, norm, head. One path for prompt, chunk and token."""

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from torch import Tensor, nn

from ..errors import ConfigError, InputError, StateError
from ..layers.embedding import Embedding, Head, TiedHead
from ..layers.norm import RMSNorm
from ..mixers import Span
from ..mixers.local_attention import LocalAttentionMixer
from ..ops.backend import prefer
from ..shapes import Counts, Flags, Hidden, Tokens
from .config import ModelConfig
from .growth import slots_needed
from .ordering import order
from .origin import Origin
from .presets import PRESETS
from .residual import ResidualBlock
from .state import State, empty_rows

CACHES = ("auto", "int8")
Logits = Literal["all", "last"] | None


class Griffin(nn.Module):
    """A stack of residual blocks over any pattern of mixers (Griffin, Hawk, RecurrentGemma).

    The weights are not set here: see `build` for random ones and `load` for published ones.
    """

    def __init__(
        self,
        config: ModelConfig,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        with torch.device("meta"):  # nn.Linear would draw weights that nobody wants
            self.embed = Embedding(
                config.vocab, config.width, config.scale_embeddings, config.scale_rounding
            )
            self.layers = nn.ModuleList(ResidualBlock(config, i) for i in range(config.layers))
            offset = config.norm_weight == "offset"
            self.final_norm = RMSNorm(config.width, config.norm_eps, offset)
            # logits of hidden states: (..., W) to (..., V)
            self.head: Head | TiedHead = (
                TiedHead(self.embed, config.logit_cap)
                if config.tied
                else Head(config.vocab, config.width, config.logit_cap)
            )
        if dtype is not None:
            self.to(dtype)
        self.to_empty(device=device if device is not None else torch.get_default_device())
        self.origin = Origin(self)
        self.kernels = "auto"  # or a name of ops.backend.NAMES, which then never falls back

    @property
    def cache(self) -> str:
        """In what local attention keeps keys and values: "auto", as activations, or "int8".

        Said before a text is begun: it is what an empty state is made of. int8 takes half of bf16's
        bytes; docs/numerics.md has what it costs. Raises ConfigError for another name, or for
        "int8" where no layer is local attention.
        """
        return next((mixer.cache for mixer in self._rings()), "auto")

    @cache.setter
    def cache(self, kind: str) -> None:
        """See above."""
        if kind not in CACHES:
            raise ConfigError(f"cache={kind!r} is none of: {', '.join(CACHES)}")
        rings = self._rings()
        if kind != "auto" and not rings:
            raise ConfigError(f"cache={kind!r} is for local attention, and no layer has it")
        for mixer in rings:
            mixer.cache = kind

    def _rings(self) -> list[LocalAttentionMixer]:
        return [b.mixer for b in self.blocks if isinstance(b.mixer, LocalAttentionMixer)]

    @property
    def blocks(self) -> list[ResidualBlock]:
        """The residual blocks, in order."""
        return list(self.layers)  # pyright: ignore[reportReturnType]

    @torch.no_grad()
    def initialise(self, seed: int = 0) -> "Griffin":
        """Random weights: the same for a seed on any machine's CPU. Returns the model."""
        random = torch.Generator().manual_seed(seed)
        self.embed.initialise(random)
        for block in self.blocks:
            block.initialise(self.config, random)
        self.final_norm.initialise()
        self.head.initialise(random)
        return self

    def empty_state(self, batch_size: int) -> State:
        """The state before anything was read, on the model's device.

        At its full and final size, but for growing caches, which hold nothing yet.
        """
        if batch_size < 0:
            raise InputError(f"batch_size must be 0 or more, not {batch_size}")
        weight = self.embed.weight
        layers = tuple(
            block.mixer.empty_state(batch_size, weight.device, weight.dtype)
            for block in self.blocks
        )
        rows = empty_rows(batch_size, weight.device)
        return State(layers, *rows, self.origin, longest=0)

    def forward(
        self,
        tokens: Tokens,
        starts: Flags | None = None,
        valid: Flags | None = None,
        state: State | None = None,
        logits: Logits = "all",
        donate: bool = False,
        window: Counts | None = None,
    ) -> tuple[Tensor | None, State]:
        """Reads tokens (B, T) after `state`; returns logits and the state after them.

        tokens: int64 ids. starts: (B, T) bool, the first token of a document: all before it is
        forgotten; a row's very first token always is one. valid: (B, T) bool, gaps allowed: the
        result is that of the valid tokens alone. state: of an earlier call (None: nothing read).
        logits: "all" (B, T, V); "last" (B, V), each row's last valid token; None. donate: the
        memory of `state` may be reused, and `state` raises from then on. window: (B,) int64, a
        shorter window of local attention for this call, per row (for training).

        Logits have the weights' dtype. At invalid tokens they are finite and mean nothing.
        Raises InputError for wrong shapes, dtypes or ids; StateError for a foreign or used state.
        """
        if logits not in ("all", "last", None):
            raise InputError(f'logits must be "all", "last" or None, not {logits!r}')
        with self._chosen_kernels():
            hidden, after, last = self._read(tokens, starts, valid, state, donate, window, logits)
            if logits is None:
                return None, after
            return self.head(last if logits == "last" else hidden), after

    def hidden(
        self,
        tokens: Tokens,
        starts: Flags | None = None,
        valid: Flags | None = None,
        state: State | None = None,
        donate: bool = False,
        window: Counts | None = None,
    ) -> tuple[Hidden, State]:
        """As `forward`, but the final normalised hidden states (B, T, W) in place of the logits."""
        with self._chosen_kernels():
            hidden, after, _ = self._read(tokens, starts, valid, state, donate, window, "all")
        return hidden, after

    def _chosen_kernels(self) -> AbstractContextManager[None]:
        """`prefer` around a call, if this model names its kernels."""
        return nullcontext() if self.kernels == "auto" else prefer(self.kernels)

    def _read(
        self,
        tokens: Tokens,
        starts: Flags | None,
        valid: Flags | None,
        state: State | None,
        donate: bool,
        window: Counts | None,
        logits: Logits,
    ) -> tuple[Tensor, State, Tensor]:
        state = self._checked(tokens, starts, valid, state)
        fed = state.pending is not None
        if state.pending is not None:  # a token of the text that no call has fed yet
            waits = (state.pending >= 0)[:, None]
            valid = torch.ones_like(tokens, dtype=torch.bool) if valid is None else valid
            starts = torch.zeros_like(valid) if starts is None else starts
            tokens = torch.cat([state.pending.clamp(min=0)[:, None], tokens], dim=1)
            starts = torch.cat([torch.zeros_like(waits), starts], dim=1)
            valid = torch.cat([waits, valid], dim=1)
        # on a GPU looking at the flags would stop the queue
        if valid is not None and tokens.device.type == "cpu" and not torch.compiler.is_compiling():
            valid = None if bool(valid.all()) else valid
        if logits == "last" and tokens.shape[1] == 0:
            raise InputError('logits="last" of no tokens: give at least one, or logits=None')
        ordered = order(tokens, starts, valid, state.position, state.due)
        slots = slots_needed(state, ordered.next_position, tokens.shape[1])
        span = Span(
            ordered.starts,
            ordered.position,
            ordered.counts,
            state.read,
            window,
            donate,
            slots,
            whole=valid is None,
            made={},
        )
        x = self.embed(ordered.tokens)
        layers = list(state.layers)
        if tokens.shape[1]:
            for i, block in enumerate(self.blocks):
                x, layers[i] = block(x, span, layers[i])
        if donate:
            state.donate()
        after = State(
            tuple(layers),
            state.read + ordered.counts,
            ordered.next_position,
            ordered.due,
            self.origin,
            longest=slots,
        )
        last = x
        if logits == "last":
            at = (ordered.counts - 1).clamp(min=0)[:, None, None].expand(-1, 1, x.shape[2])
            last = x = x.gather(1, at)[:, 0]
        else:
            if ordered.rank is not None:
                x = x.gather(1, ordered.rank[..., None].expand_as(x))
            x = x[:, 1:] if fed else x
        if logits is not None:
            x = last = self.final_norm(x)
        return x, after, last

    def _checked(
        self, tokens: Tensor, starts: Tensor | None, valid: Tensor | None, state: State | None
    ) -> State:
        """Refuses what cannot be meant; returns the state to start from."""
        if tokens.dim() != 2 or tokens.dtype != torch.int64:
            raise InputError(
                f"tokens must be (B, T) int64, not {tuple(tokens.shape)} {tokens.dtype}"
            )
        for name, flags in (("starts", starts), ("valid", valid)):
            if flags is not None and (flags.shape != tokens.shape or flags.dtype != torch.bool):
                raise InputError(
                    f"{name} must be {tuple(tokens.shape)} bool like tokens, "
                    f"not {tuple(flags.shape)} {flags.dtype}"
                )
        # on a GPU looking at the ids would stop the queue; its embedding refuses bad ones by itself
        if tokens.device.type == "cpu" and not torch.compiler.is_compiling():
            bad = (tokens < 0) | (tokens >= self.config.vocab)
            if valid is not None:
                bad &= valid
            if bad.any():
                raise InputError(
                    f"token id {int(tokens[bad][0])} is outside the vocabulary of "
                    f"{self.config.vocab}; "
                    "was the text encoded with another model's tokenizer?"
                )
        if state is None:
            return self.empty_state(tokens.shape[0])
        if state.batch_size != tokens.shape[0]:
            raise StateError(f"tokens have {tokens.shape[0]} rows, the state {state.batch_size}")
        if state.origin is not self.origin and state.origin.model() != self.origin.model():
            raise StateError("this state belongs to another model; start from model.empty_state()")
        return state


def resolve_config(config: ModelConfig | str) -> ModelConfig:
    """A config as it is, or the preset of that name; an unknown name lists the known ones."""
    if isinstance(config, ModelConfig):
        return config
    if config not in PRESETS:
        raise ConfigError(f"no preset {config!r}; there are: {', '.join(PRESETS)}")
    return PRESETS[config]


def build(
    config: ModelConfig | str,
    seed: int = 0,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Griffin:
    """A model with random weights: `config` is a ModelConfig or the name of a preset.

    The weights depend on the seed alone: they are drawn on the CPU in float32, whatever `device`
    and `dtype`. On the device "meta" nothing is drawn or allocated.
    """
    config = resolve_config(config)
    if torch.device(device).type == "meta":
        return Griffin(config, device="meta", dtype=dtype)
    return Griffin(config, "cpu", torch.float32).initialise(seed).to(device=device, dtype=dtype)
