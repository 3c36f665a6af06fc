"""What every mixer obeys: the facts of a call, the state contract, the config's base class.

A mixer moves information along time. Its state is a NamedTuple of tensors, batch first, that goes
in and comes out; nothing is kept on the module. Within a call each row's valid tokens come first
(`models/ordering.py` sees to that), so a mixer meets padding at the right end only.
"""

from collections.abc import Callable, Hashable
from dataclasses import MISSING, dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

import torch
from torch import nn

from ..errors import ConfigError
from ..shapes import JSON, Counts, Flags, Hidden, Tokens

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

MixerState = Any  # a NamedTuple of tensors; each mixer has its own
Made = TypeVar("Made")


class Span(NamedTuple):
    """Where the tokens of one call stand: the same for every layer, so it is made once.

    starts    first token of a document
    position  of each token in its document, from 0
    counts    valid tokens of each row in this call; they come first
    read      tokens that the row had read before this call
    reach     a shorter window of local attention for this call, per row, or None
    donate    the incoming state's memory may be reused
    slots     how many slots a growing cache needs after this call; None: count them
    whole     all T tokens of every row are valid; False: some may not be
    made      what `once` made so far
    """

    starts: Flags
    position: Tokens
    counts: Counts
    read: Counts
    reach: Counts | None = None
    donate: bool = False
    slots: int | None = None
    whole: bool = False
    made: dict[Any, Any] | None = None

    def once(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """What `make` makes of these facts, made by the first layer of a call that asks for it.

        In training each layer makes its own: a block that is computed twice does the same twice.
        """
        if self.made is None or torch.is_grad_enabled() or torch.compiler.is_compiling():
            return make()
        if key not in self.made:
            self.made[key] = make()
        return self.made[key]

    def ends(self) -> Counts:
        """The position after each row's last valid token; 0 in rows without one."""
        last = (self.counts - 1).clamp(min=0)[:, None]
        after = self.position.gather(1, last)[:, 0] + 1 if self.position.shape[1] else last[:, 0]
        return after * (self.counts > 0)


class Mixer(nn.Module):
    """A layer that moves information along time."""

    def initialise(self, depth: int, random: torch.Generator) -> None:
        """Random weights; `depth` is the number of residual blocks, which scales the outputs."""
        raise NotImplementedError(f"{type(self).__name__} has no initialise")

    def empty_state(self, batch: int, device: torch.device, dtype: torch.dtype) -> MixerState:
        """The state before anything was read; `dtype` is that of the activations."""
        raise NotImplementedError(f"{type(self).__name__} has no empty_state")

    def fused(
        self, norm: nn.Module, x: Hidden, span: Span, state: MixerState
    ) -> tuple[Hidden, MixerState] | None:
        """x + self(norm(x)) and the state after, by one call of a library that has the mixer.

        To the bit what the modules make of it. None where there is no such call, as here, or where
        it would pass by what someone wants of a module: see layers/halves.py.
        """
        return None

    def forward(self, x: Hidden, span: Span, state: MixerState) -> tuple[Hidden, MixerState]:
        """Mixed x, and the state after each row's `span.counts` tokens. x at padding is ignored."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")


def longest(ends: Counts) -> int:
    """The largest of them, on the host (waits for the device); 0 of none."""
    return int(ends.max()) if ends.numel() else 0


def capacity(layer: MixerState) -> int | None:
    """Slots of a state that grows along its tensors' axis 1 (its class says `grows = True`)."""
    return layer[0].shape[1] if getattr(layer, "grows", False) else None


@dataclass(frozen=True, kw_only=True)
class MixerConfig:
    """The settings of a mixer; `kind` names it in patterns and files."""

    kind: ClassVar[str]
    # settings that only shape random weights: published formats don't carry them
    only_initial: ClassVar[frozenset[str]] = frozenset()
    # settings added after a release: see plain_settings
    later: ClassVar[frozenset[str]] = frozenset()

    def bytes_per_token(self, dtype: torch.dtype) -> int:
        """Bytes that a row's state grows by with a token of this dtype; 0: its size is fixed."""
        return 0

    def build(self, width: int) -> Mixer:
        """The mixer for a residual stream of this width, weights not yet set."""
        raise NotImplementedError(f"{type(self).__name__} has no build")

    def to_dict(self) -> JSON:
        """{"kind": ..., every field but those of `later` at their default}."""
        return {"kind": self.kind} | plain_settings(self, self.later)

    @classmethod
    def from_dict(cls, settings: JSON) -> "MixerConfig":
        """The inverse of to_dict; a field that is unknown, missing or of a wrong type is named."""
        known = {field.name: field for field in fields(cls)}
        given = {name: value for name, value in settings.items() if name != "kind"}
        required = {name for name, field in known.items() if field.default is MISSING}
        return cls(**checked_fields(cls.kind, given, known, required))


def plain_settings(config: "DataclassInstance", later: frozenset[str]) -> JSON:
    """Every field's value, without the fields of `later` that have their default.

    `later` names the settings that a release did not know yet. At their default they mean what that
    release did, so its fingerprints, states and configs stay valid; at any other value they count.
    """
    values = {field.name: getattr(config, field.name) for field in fields(config)}
    silent = {f.name for f in fields(config) if f.name in later and values[f.name] == f.default}
    return {name: value for name, value in values.items() if name not in silent}


def checked_fields(owner: str, given: JSON, known: JSON, required: set[str]) -> JSON:
    """The settings, whole numbers made float where a float belongs (JSON doesn't tell them apart).

    Refuses unknown, missing and mistyped ones by name.
    """
    if unknown := sorted(set(given) - set(known)):
        raise ConfigError(f"{owner} has no setting {unknown[0]!r:.80}; it has: {', '.join(known)}")
    if missing := sorted(required - set(given)):
        raise ConfigError(f"{owner} lacks the setting {missing[0]!r}")
    checked: JSON = {}
    for name, value in given.items():
        wanted = known[name].type
        if wanted is float and type(value) is int and abs(value) < 2**1000:
            value = float(value)
        checked[name] = value
        if isinstance(wanted, type) and type(value) is not wanted:
            raise ConfigError(
                f"{owner}.{name} must be {wanted.__name__}, "
                f"not {type(value).__name__} {value!r:.40}"
            )
        if wanted is int and abs(value) >= 2**62:  # sizes are multiplied, also by fractions
            raise ConfigError(f"{owner}.{name} cannot be as large as {value!r:.40}")
    return checked


def require(condition: bool, message: str) -> None:
    """A ConfigError with this message unless the condition holds."""
    if not condition:
        raise ConfigError(message)
