"""LoRA by peft: put into a model, checked for gradients, taken out as an adapter's files."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ...checkpoints.adapters import Place, places, write_adapter
from ...errors import ConfigError, MissingExtra, TrainingError
from ...models import Griffin
from ...precision import accumulation
from ...shapes import JSON
from ..distributed import whole
from .config import FinetuneConfig
from .targets import Targets, choose

NAME = "default"  # peft's word for the only adapter


def require_peft() -> None:
    """Raises MissingExtra where peft is not installed."""
    if importlib.util.find_spec("peft") is None:
        raise MissingExtra("peft", "train", "LoRA")


def adapt(model: Griffin, config: FinetuneConfig) -> Targets:
    """Wraps the config's targets in place and freezes everything else.

    A is drawn from torch's global random numbers, B is 0, both in fp32 (float64 for such a model):
    until the first step the model computes what it did. Raises MissingExtra, and ConfigError where
    nothing is adapted.
    """
    require_peft()
    from .peft_layer import inject

    targets = choose(model, config.targets, config.gates)
    if not targets.adapted:
        raise ConfigError("nothing would be adapted: the targets name no part of this model")
    inject(model, targets, config.rank, config.alpha, config.dropout)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(accumulation(parameter.dtype))
    return targets


def factors(tensors: Mapping[str, Tensor], targets: Targets) -> dict[str, tuple[Tensor, Tensor]]:
    """A and B of every adapted parameter, by our names; tensors: the model's parameters."""
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for name in targets.adapted:
        home = name.rpartition(".")[0]
        a, b = (tensors[f"{home}.lora_{side}.{NAME}.weight"].detach() for side in "AB")
        found[name] = (a, b)
    return found


def check_gradients(model: nn.Module, targets: Targets) -> None:
    """After a backward pass: every adapter was reached, or TrainingError names those that were not.

    B must have a gradient that is not all 0; A too, once B is not 0 itself.
    """
    tensors = dict(model.named_parameters())
    dead: list[str] = []
    for name in targets.adapted:
        home = name.rpartition(".")[0]
        a, b = (tensors[f"{home}.lora_{side}.{NAME}.weight"] for side in "AB")
        if not _is_reached(b) or (bool(whole(b.detach()).any()) and not _is_reached(a)):
            dead.append(home)
    if dead:
        more = f" and {len(dead) - 8} more" if len(dead) > 8 else ""
        raise TrainingError(
            f"{len(dead)} of {len(targets.adapted)} adapters got no gradient and would never "
            f"learn: {', '.join(dead[:8])}{more}; the model's forward pass goes past them. "
            "Leave them out with --set targets=..., and report it"
        )


def _is_reached(parameter: Tensor) -> bool:
    return parameter.grad is not None and bool(whole(parameter.grad).any())


def save_adapter(
    model: Griffin,
    targets: Targets,
    folder: Path,
    config: FinetuneConfig,
    base: str,
    facts: JSON,
    learned: Mapping[str, Tensor] | None = None,
) -> None:
    """Writes the adapter as peft reads it, under Hugging Face's names where the model has them.

    base: what the model was loaded by. learned: the trained parameters, where the model keeps only
    parts of them. Raises CheckpointError where the disk refuses.
    """
    from .peft_layer import settings

    kept = places(model.config, targets.adapted)
    everything = [f"{name}.weight" for name, m in model.named_modules() if _is_linear(m)]
    other = places(model.config, [n for n in everything if n not in kept and ".lora_" not in n])
    described = settings(
        config.rank,
        config.alpha,
        config.dropout,
        _shortest([kept[f"{name}.weight"].module for name in targets.modules],
                  [place.module for place in other.values()]),
        sorted({_last_two(kept[name]) for name in targets.parameters}),
        base,
    )  # fmt: skip
    tensors = dict(model.named_parameters()) if learned is None else learned
    write_adapter(folder, kept, factors(tensors, targets), described, facts)


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear)


def _last_two(place: Place) -> str:
    return f"{place.module.rpartition('.')[2]}.{place.parameter}"


def _shortest(chosen: list[str], other: list[str]) -> list[str]:
    """Last parts of names where they mean exactly the chosen modules, else whole names."""
    last = {name.rpartition(".")[2] for name in chosen}
    if any(name.rpartition(".")[2] in last for name in other):
        return sorted(chosen)
    return sorted(last)


def facts_of(base: str, name: str, tuned: bool, more: dict[str, Any]) -> JSON:
    """What stands in griffin.json beside the adapter."""
    return {"base": base, "base_name": name, "instruction_tuned": tuned} | more
