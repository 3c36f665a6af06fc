"""A model's configuration from the shapes of its tensors, and from whoever knows the rest.

Shapes tell the vocabulary, all widths, the pattern and the heads. They cannot tell the window, the
cap on logits, whether embeddings are scaled, nor rotary and norm constants. Those come from the one
preset with these very shapes, or from the caller. Nothing is guessed: where several presets fit, or
none, or the caller contradicts the shapes, the error names the choices.
"""

import re
from dataclasses import dataclass, fields

from ...errors import CheckpointMismatch, ConfigError
from ...mixers import RGLRU, LocalAttention, MixerConfig
from ...models import PRESETS, ModelConfig, resolve_config
from ...shapes import JSON
from ..format import Settings
from ..names import Shape
from ..settings import overrule
from ..source import Source
from .names import in_torch

_BLOCK = re.compile(r"blocks\.(0|[1-9][0-9]{0,4})\.")
_EMBEDDING = "embedder.input_embedding"
_PADDING = 256  # rows at most that a table padded for the hardware has beyond the vocabulary
_KINDS: tuple[type[MixerConfig], ...] = (RGLRU, LocalAttention)
_OF_ATTENTION = ("window", "rope_base", "rope_fraction")
_OTHERS = ("rope_base", "rope_fraction", "norm_eps")  # of every published model the same
_SHAPED = {  # a caller may give these too: they must then be what the shapes tell
    "vocab", "width", "mlp_width", "layers", "heads", "head_dim", "kv_heads", "lru_width",
    "conv_width",
}  # fmt: skip


@dataclass(frozen=True)
class Told:
    """What shapes tell. blocks: per layer the kind of its mixer, and those settings of it."""

    rows: int
    width: int
    mlp_width: int
    blocks: tuple[tuple[type[MixerConfig], tuple[tuple[str, int], ...]], ...]

    @property
    def attends(self) -> bool:
        """Whether any layer is attention, which has a window."""
        return any(kind is LocalAttention for kind, _ in self.blocks)

    def __str__(self) -> str:
        first = {kind.kind: dict(settings) for kind, settings in reversed(self.blocks)}
        letters = "".join("A" if kind is LocalAttention else "R" for kind, _ in self.blocks[:60])
        return (
            f"vocab {self.rows}, width {self.width}, mlp_width {self.mlp_width}, "
            f"{len(self.blocks)} layers {letters}, "
            + ", ".join(f"{kind} {settings}" for kind, settings in first.items())
        )


def infer(source: Source, given: Settings | None) -> ModelConfig:
    """The configuration of a checkpoint that carries none.

    given: a preset's name, a ModelConfig, or a dict of what shapes cannot tell. Raises
    CheckpointMismatch where the tensors are not DeepMind's, ConfigError where what is known does
    not decide, or contradicts the shapes.
    """
    told = read(source)
    if given is not None and not isinstance(given, dict):
        config = resolve_config(given)
        if wrong := _differences(config, told):
            raise ConfigError(
                f"config= is not that of {source.where}: {'; '.join(wrong)}; give what belongs to "
                f"these weights ({told})"
            )
        return config
    wishes: JSON = dict(given or {})
    needed = [*(["window"] if told.attends else []), "logit_cap", "scale_embeddings"]
    if unknown := sorted(set(wishes) - {*needed, "window", *_OTHERS, *_SHAPED}):
        raise ConfigError(
            f"config= has the setting {unknown[0]!r}, which a checkpoint of DeepMind's does not "
            f"leave open; it leaves open: {', '.join((*needed, *_OTHERS))}"
        )
    if wrong := _contradictions(told, wishes):
        raise ConfigError(f"config= is not that of {source.where}: {'; '.join(wrong)} ({told})")
    open_ = {
        name: value for name, value in wishes.items() if name not in _SHAPED or name == "vocab"
    }
    if not set(needed) - set(wishes):
        return _assembled(source, told, open_)
    fits = {name: config for name, config in PRESETS.items() if not _differences(config, told)}
    agree = {k: v for k, v in fits.items() if overrule(v, _of(v, open_)) == v} if wishes else fits
    for found in (agree, fits):  # the preset that the settings single out, or the one they change
        if found and all(config == next(iter(found.values())) for config in found.values()):
            config = next(iter(found.values()))
            return overrule(config, _of(config, open_))
    missing = [name for name in needed if name not in wishes]
    choice = f"fit several presets ({', '.join(fits)})" if fits else "fit no preset"
    example = {"window": 2048, "logit_cap": 30.0, "scale_embeddings": True}
    raise ConfigError(
        f"{source.where} carries no config, and its shapes ({told}) {choice}; they do not tell "
        f"{', '.join(missing)}: give them as config=, such as "
        f"{ {name: example[name] for name in needed} }, or a ModelConfig, or the name of a preset "
        "with these shapes"
    )


def read(source: Source) -> Told:
    """What the shapes tell. Raises CheckpointMismatch naming the tensor that does not fit."""
    shapes = in_torch(source.shapes)
    layers = {int(found[1]) for name in shapes if (found := _BLOCK.match(name))}

    def shape(name: str, dimensions: int) -> Shape:
        found = shapes.get(name)
        if found is None or len(found) != dimensions or min(found) < 1:
            raise CheckpointMismatch(
                f"{source.where}: {name} is {'missing' if found is None else found}, so these are "
                "not the weights of a model of DeepMind's recurrentgemma package"
            )
        return found

    rows, width = shape(_EMBEDDING, 2)
    mlp_width = shape("blocks.0.mlp_block.ffw_up.w", 3)[-1]
    blocks: list[tuple[type[MixerConfig], tuple[tuple[str, int], ...]]] = []
    for i in range(len(layers)):
        stem = f"blocks.{i}."
        if f"{stem}recurrent_block.rg_lru.a_gate.w" in shapes:
            heads, block, _ = shape(f"{stem}recurrent_block.rg_lru.a_gate.w", 3)
            taps = shape(f"{stem}recurrent_block.conv_1d.w", 2)[0]
            found = {"width": heads * block, "heads": heads, "conv_width": taps}
            blocks.append((RGLRU, tuple(found.items())))
        else:
            # their attention has one head of keys; a linear map's weight is (out, in)
            head_dim = shape(f"{stem}attention_block.proj_k.weight", 2)[0]
            queries = shape(f"{stem}attention_block.proj_q.weight", 2)[0]
            if queries % head_dim:
                raise CheckpointMismatch(
                    f"{source.where}: {stem}attention_block.proj_q gives {queries} values, which "
                    f"are no heads of {head_dim} as in proj_k"
                )
            found = {"heads": queries // head_dim, "head_dim": head_dim, "kv_heads": 1}
            blocks.append((LocalAttention, tuple(found.items())))
    return Told(rows, width, mlp_width, tuple(blocks))


def _differences(config: ModelConfig, told: Told) -> list[str]:
    """In what a config contradicts the shapes, in words; nothing where it may be theirs."""
    wrong: list[str] = []
    if not _holds(told.rows, config.vocab):
        wrong.append(f"vocab is {config.vocab}, the embedding has {told.rows} rows")
    for name, found in (("width", told.width), ("mlp_width", told.mlp_width)):
        if getattr(config, name) != found:
            wrong.append(f"{name} is {getattr(config, name)}, by the shapes {found}")
    if config.layers != len(told.blocks):
        return [*wrong, f"layers is {config.layers}, by the shapes {len(told.blocks)}"]
    for i, (kind, settings) in enumerate(told.blocks):
        mixer = config.mixer(i)
        if type(mixer) is not kind:
            return [*wrong, f"layer {i} is {mixer.kind}, by the shapes {kind.kind}"]
        for name, found in settings:
            if getattr(mixer, name) != found:
                said = f"{kind.kind}.{name} is {getattr(mixer, name)}, by the shapes {found}"
                wrong += [said] if said not in wrong else []
    for owner in (config, *config.pattern):
        plain = owner.to_dict()
        wrong += [f"{name} is {plain[name]!r}" for name in sorted(owner.later & set(plain))]
    return wrong


def _holds(rows: int, vocab: int) -> bool:
    """Whether an embedding of so many rows may be of this vocabulary, padded for the hardware."""
    return rows == vocab or (vocab < rows <= vocab + _PADDING and rows % 64 == 0)


def _of(config: ModelConfig, wishes: JSON) -> JSON:
    """The wishes that a model of this config can have: without attention there is no window."""
    names = {field.name for owner in (config, *config.pattern) for field in fields(owner)}
    return {name: value for name, value in wishes.items() if name in names}


def _contradictions(told: Told, wishes: JSON) -> list[str]:
    """In what the caller's settings contradict the shapes, in words."""
    wrong: list[str] = []
    mixers = [(kind, dict(settings)) for kind, settings in told.blocks]
    plain = {"width": told.width, "mlp_width": told.mlp_width, "layers": len(mixers)}
    for name in sorted(_SHAPED & set(wishes)):
        if name == "vocab":
            fits = type(wishes[name]) is int and _holds(told.rows, wishes[name])
            found = wishes[name] if fits else told.rows
        elif name in plain:
            found = plain[name]
        else:  # of mixers: one number, unless layers differ
            own, kinds = ("width", (RGLRU,)) if name == "lru_width" else (name, _KINDS)
            every = {has[own] for kind, has in mixers if kind in kinds and own in has}
            found = every.pop() if len(every) == 1 else sorted(every)
        if found not in (wishes[name], []):
            wrong.append(f"{name} is {wishes[name]!r}, by the shapes {found}")
    return wrong


def _assembled(source: Source, told: Told, open_: JSON) -> ModelConfig:
    """A config of shapes and of what the caller knows."""
    made: list[JSON] = []
    try:
        for kind, settings in told.blocks:
            own: JSON = {"kind": kind.kind, **dict(settings)}
            if kind is LocalAttention:
                own |= {name: open_[name] for name in _OF_ATTENTION if name in open_}
            made.append(own)
        lengths = range(1, len(made) + 1)
        period = next(n for n in lengths if all(m == made[i % n] for i, m in enumerate(made)))
        return ModelConfig.from_dict(
            {
                "vocab": told.rows,
                "width": told.width,
                "mlp_width": told.mlp_width,
                "layers": len(made),
                "pattern": made[:period],
                **{name: value for name, value in open_.items() if name not in _OF_ATTENTION},
            }
        )
    except ConfigError as error:
        raise ConfigError(f"config= for {source.where}: {error} ({told})") from error
