"""Small runs over packed text, the same ones in one process and in many."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from griffin_lm.models import PRESETS, build
from griffin_lm.training.batch import World
from griffin_lm.training.config import TrainConfig
from griffin_lm.training.data.feeds import PackedText
from griffin_lm.training.trainer import Trainer

STEPS = 3
ROWS = 4  # of all processes together
# what is trained: float64, where sums in another order do not show, unless it says otherwise
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "accumulated": {"accumulate": 2},
    "blocks twice": {"recompute": "full"},
    "what is cheap twice": {"recompute": "selective"},
    "in segments": {"segment": 24, "loss_chunk": 7},
    "untied": {"tied": False},
    "fp32": {"kind": torch.float32},
    "bf16": {"kind": torch.float32, "bf16": True, "recompute": "full"},
}
MIXERS = ("hawk", "lru", "gru", "mamba", "llama")  # tiny presets, in bf16


def config(rows: int, **changes: Any) -> TrainConfig:
    """Gradients are clipped at every step, since their norm starts near 3."""
    given: dict[str, Any] = {"model": PRESETS["tiny-griffin"], "steps": STEPS, "warmup_steps": 1}
    given |= {"rows": rows, "length": 48, "compile": False, "bf16": False, "rate_seconds": 0.0}
    return TrainConfig(feed=PackedText(bins=4), **(given | {"clip": 0.5} | changes))


def opened(
    data: Path, out: Path, world: World, kind: torch.dtype = torch.float64, **changes: Any
) -> Trainer:
    """A run before its first step; rows are shared out over the processes."""
    model = replace(PRESETS["tiny-griffin"], vocab=2048)
    if "model" in changes:
        model = replace(PRESETS[f"tiny-{changes.pop('model')}"], vocab=2048)
    if "tied" in changes:
        model = replace(model, tied=changes.pop("tied"))
    settings = config(ROWS // world.size, model=model, **changes)
    assert settings.feed is not None
    feed = settings.feed.open(settings, data, out, world)
    return Trainer(build(model, dtype=kind), feed, settings, out, world)


def trained(run: Trainer, steps: int = STEPS) -> dict[str, Any]:
    """Losses, norms, gradients as the optimiser got them, weights and moments at the end: whole."""
    gradients: list[dict[str, Tensor]] = []
    named = dict(run.model.named_parameters())

    def note(*_: Any) -> None:
        gradients.append({name: whole(p.grad).clone() for name, p in named.items()})

    hook = run.optimizer.register_step_pre_hook(note)
    figures = [run.step() for _ in range(steps)]
    hook.remove()
    return {
        "loss": [one.loss for one in figures],
        "norm": [one.norm for one in figures],
        "tokens": run.tokens,
        "gradients": gradients,
        **held_by(run),
    }


def held_by(run: Trainer) -> dict[str, Any]:
    """Weights and moments, whole."""
    return {
        "weights": {name: whole(one).clone() for name, one in run.model.state_dict().items()},
        "moments": {
            f"{number} {name}": whole(one).clone()
            for number, moments in run.optimizer.state_dict()["state"].items()
            for name, one in moments.items()
        },
    }


def whole(tensor: Any) -> Tensor:
    """All processes' parts together."""
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach()


def kinds_inside(run: Trainer, go: Callable[[], object]) -> dict[str, torch.dtype]:
    """The dtype that each kind of parameter has while blocks compute."""
    found: dict[str, torch.dtype] = {}
    block = run.model.blocks[1]  # recurrent

    def note(*_: Any) -> None:
        for name, parameter in block.named_parameters():
            if not isinstance(parameter, DTensor):
                found[name] = parameter.dtype

    hooks = [part.register_forward_pre_hook(note) for part in block.modules() if part is not block]
    go()
    for hook in hooks:
        hook.remove()
    return found
