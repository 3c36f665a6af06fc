"""Rotary settings of config.json: `rope_theta`, `rope_scaling` and, newer, `rope_parameters`."""

from typing import NamedTuple

from ...errors import CheckpointError
from ...mixers import GlobalAttention
from ...shapes import JSON
from .settings import Settings

PLACES = ("rope_parameters", "rope_scaling")  # the newer place, and the older


class Rope(NamedTuple):
    """Base, share of each head that turns, and Llama 3.1's scaling (a factor of 1: none)."""

    base: float
    fraction: float
    factor: float = 1.0
    low: float = 1.0
    high: float = 4.0
    context: int = 8192

    @classmethod
    def of(cls, mixer: GlobalAttention) -> "Rope":
        """Those of a mixer."""
        scaling = (mixer.rope_factor, mixer.rope_low, mixer.rope_high, mixer.rope_context)
        return cls(mixer.rope_base, mixer.rope_fraction, *scaling)

    def settings(self) -> JSON:
        """As the mixer calls them."""
        return {f"rope_{name}": value for name, value in self._asdict().items()}


def read_rope(get: Settings, fraction: float = 1.0, scaled: bool = True) -> Rope:
    """What an object in either place says; what it leaves out is looked for beside it.

    fraction: the share of each head that turns where nothing says so. scaled: "llama3" is known.
    Raises CheckpointError naming the kind of scaling that is unknown, CheckpointCorrupt where the
    two places disagree or an object is malformed.
    """
    base = get.real("rope_theta", 10_000.0)
    fraction = get.real("partial_rotary_factor", fraction)
    plain = Rope(base, fraction)
    told = {
        name: _read(get, name, inner, plain, scaled)
        for name in PLACES
        if (inner := get.get(name)) is not None
    }
    if len(set(told.values())) > 1:
        raise get.refuse("rope_scaling", "the same as rope_parameters where both are there")
    return next(iter(told.values()), plain)


def _read(get: Settings, name: str, inner: object, plain: Rope, scaled: bool) -> Rope:
    if not isinstance(inner, dict) or any(isinstance(value, dict) for value in inner.values()):
        raise get.refuse(name, "one flat object")
    inside = Settings(inner, get.path, name)
    kinds = ("default", "llama3") if scaled else ("default",)
    said = [found for key in ("rope_type", "type") if (found := inside.get(key)) is not None]
    kind = said[0] if said else "default"
    if any(other != kind for other in said) or kind not in kinds:
        raise CheckpointError(
            f"{get.path}: {name}.rope_type is {kind!r:.60}; only "
            f"{' and '.join(map(repr, kinds))} {'are' if scaled else 'is'} supported"
        )
    made = Rope(
        inside.real("rope_theta", plain.base),
        inside.real("partial_rotary_factor", plain.fraction),
    )
    if kind == "llama3":
        made = made._replace(
            factor=inside.real("factor", None),
            low=inside.real("low_freq_factor", None),
            high=inside.real("high_freq_factor", None),
            context=inside.whole("original_max_position_embeddings", None),
        )
    inside.refuse_unread()
    return made


def describe_rope(rope: Rope) -> JSON:
    """Both places, for readers old and new."""
    scaled = rope != Rope(rope.base, rope.fraction)
    scaling: JSON = {"rope_type": "default"}
    if scaled:
        scaling = {
            "rope_type": "llama3",
            "factor": rope.factor,
            "low_freq_factor": rope.low,
            "high_freq_factor": rope.high,
            "original_max_position_embeddings": rope.context,
        }
    return {
        "rope_theta": rope.base,
        "rope_scaling": scaling if scaled else None,
        "rope_parameters": scaling | {"rope_theta": rope.base},
    }
