"""Which parts of a model LoRA adapts, and what share of its products that is."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import nn

from ...checkpoints.adapters import Place, places
from ...errors import ConfigError
from ...layers.block_diagonal import BlockDiagonal
from ...layers.embedding import Embedding, Head
from ...mixers.s6 import S6Mixer
from ...models import Griffin

_NEVER = {"embed", "head", "embed_tokens", "embeddings", "lm_head"}


@dataclass(frozen=True)
class Targets:
    """modules: linear maps to wrap; parameters: of gates; both by our names. left: what is not."""

    modules: tuple[str, ...]
    parameters: tuple[str, ...]
    left: tuple[str, ...]
    share: float  # of the numbers in matrix products, the head among them

    @property
    def adapted(self) -> tuple[str, ...]:
        """The adapted parameters, by our names."""
        return (*(f"{name}.weight" for name in self.modules), *self.parameters)

    def lines(self, layers: int) -> list[str]:
        """The report: what is adapted, what is not, each kind of part once."""
        modules = _grouped([*self.modules, *self.parameters], layers)
        return [
            f"adapted: {len(self.modules) + len(self.parameters)} parts with {self.share:.1%} of "
            f"the numbers in matrix products: {modules}",
            f"not adapted: {_grouped(self.left, layers) or 'nothing'}",
        ]


def choose(model: Griffin, wanted: Sequence[str], gates: bool) -> Targets:
    """The parts that these names mean. Raises ConfigError, listing what there is, for others."""
    linear, blocks, left = _products(model)
    theirs = places(model.config, [f"{name}.weight" for name in linear])
    # peft refuses Mamba's out_proj, since the fused kernel of transformers goes past an adapter
    # there; ours does not, so it may be named
    blocks_of = {name for name, module in model.named_modules() if isinstance(module, S6Mixer)}
    refused = {f"{name}.linear_out" for name in blocks_of}
    chosen: list[str] = []
    for word in wanted:
        if word == "all":
            found = [name for name in linear if name not in refused]
        else:
            found = [name for name in linear if _means(word, name, theirs[f"{name}.weight"])]
        if not found:
            raise ConfigError(_unknown(word, linear, theirs))
        chosen += found
    modules = tuple(name for name in linear if name in chosen)
    if gates and not blocks:
        raise ConfigError("gates=true: this model has no block-diagonal gates; set gates=false")
    parameters = tuple(f"{name}.w" for name in blocks) if gates else ()
    sizes = linear | blocks | left
    done = sum(sizes[name] for name in (*modules, *(blocks if gates else ())))
    rest = [name for name in sizes if name not in modules and not (gates and name in blocks)]
    return Targets(modules, parameters, tuple(rest), done / max(1, sum(sizes.values())))


def _products(model: Griffin) -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
    """Numbers in linear maps that are called, in gates, and in what is never adapted; by name."""
    uncalled = {
        f"{name}.{part}"
        for name, module in model.named_modules()
        for part in getattr(module, "uncalled", ())  # an adapter there would be passed by
    }
    linear: dict[str, int] = {}
    blocks: dict[str, int] = {}
    left: dict[str, int] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            kind = left if name in uncalled else linear
            kind[name] = module.in_features * module.out_features
        elif isinstance(module, BlockDiagonal):
            blocks[name] = module.w.numel()
        elif isinstance(module, Head) or (isinstance(module, Embedding) and model.config.tied):
            left[name] = module.weight.shape[0] * module.weight.shape[1]
    return linear, blocks, left


def _means(word: str, name: str, place: Place) -> bool:
    """Whether a word is the end of a module's name, ours or Hugging Face's."""
    return f".{name}".endswith(f".{word}") or f".{place.module}".endswith(f".{word}")


def _unknown(word: str, linear: Iterable[str], theirs: dict[str, Place]) -> str:
    if word.rpartition(".")[2] in _NEVER:
        return (
            f"targets={word}: embedding and head are never adapted; where they are one matrix, an "
            "adapter would change both. Fine-tune all weights (without --lora) to change them"
        )
    ours = dict.fromkeys(name.rpartition(".")[2] for name in linear)
    also = dict.fromkeys(place.module.rpartition(".")[2] for place in theirs.values())
    return (
        f"targets={word} names nothing; there are: all, {', '.join([*ours, *(also - ours.keys())])}"
    )


def _grouped(names: Iterable[str], layers: int) -> str:
    """`mixer.q (9 of 26 layers)` for all that differ in the layer's number only."""
    counts: dict[str, int] = {}
    for name in names:
        parts = name.split(".")
        inner = ".".join(parts[2:]) if parts[0] == "layers" else name
        counts[inner] = counts.get(inner, 0) + (parts[0] == "layers")
    shown = (f"{name} ({n} of {layers} layers)" if n else name for name, n in counts.items())
    return ", ".join(shown)
