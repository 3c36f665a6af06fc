"""`griffin inspect`: what a model is and what it needs, before any weight is loaded."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import common

if TYPE_CHECKING:
    from ..models import Griffin, ModelConfig

DTYPES = ("float32", "bfloat16")
PARTS = {  # of a parameter's name -> what the table calls it; the first that is found counts
    "embed.": "embedding (and head)",
    ".cell.": "gates and Lambda",
    ".conv.": "causal conv",
    ".mixer.linear_": "recurrent block, linear",
    ".mixer.": "local attention",
    ".mlp.": "MLP",
    "norm.": "norms",
}


def inspect(
    model: common.Model,
    config: common.Config = None,
    json: common.JsonOut = None,
    offline: common.Offline = False,
) -> None:
    """Show a model's config, parameters and memory, without loading it.

    MODEL may also be the name of a preset, such as recurrentgemma-2b: nothing is needed on disk.
    """
    found, where = config_and_files(model, common.config_of(config))
    figures = {"model": model, "path": None if where is None else str(where)}
    figures |= {"config": found.to_dict()} | figures_of(found)
    if where is not None:
        figures["files"] = files_of(where)
    show(figures)
    common.write_json(json, figures)


def config_and_files(
    model: str, config: "str | dict[str, Any] | None"
) -> "tuple[ModelConfig, Path | None]":
    """The configuration, and where its checkpoint lies if MODEL is one rather than a preset."""
    from ..checkpoints import read_config
    from ..errors import CheckpointNotFound
    from ..inference.loading import find
    from ..models import PRESETS, ModelConfig, resolve_config

    try:
        where = find(model)
    except CheckpointNotFound:
        if model not in PRESETS:
            raise
        where = None
    own = PRESETS[model] if where is None else read_config(where)
    if isinstance(config, str):
        own = resolve_config(config)
    elif config is not None:
        own = ModelConfig.from_dict(own.to_dict() | config)
    return own, where


def figures_of(config: "ModelConfig") -> dict[str, Any]:
    """Counts and bytes, from a model without memory (device meta)."""
    import torch

    from ..models import Griffin

    parts: dict[str, int] = {}
    models = {name: Griffin(config, "meta", getattr(torch, name)) for name in DTYPES}
    for name, parameter in models["float32"].named_parameters():
        part = next(label for piece, label in PARTS.items() if piece in f".{name}")
        parts[part] = parts.get(part, 0) + parameter.numel()
    return {
        "parameters": sum(parts.values()),
        "parts": parts,
        "memory": {name: memory(models[name]) for name in DTYPES},
    }


def memory(model: "Griffin") -> dict[str, int]:
    """Bytes that a model on meta would need: weights, state, the peak while loading."""
    sizes = [p.numel() * p.element_size() for p in model.parameters()]
    state = model.empty_state(1)
    recurrent = sum(
        tensor.numel() * tensor.element_size()
        for layer in state.layers
        if "h" in layer._fields
        for tensor in layer
    )
    logits = model.config.vocab * 4
    return {
        "weights": sum(sizes),
        "state_per_sequence": state.nbytes,
        "state_of_recurrent_layers": recurrent,
        "logits_per_sequence": logits,
        "to_load": sum(sizes) + max(sizes),
        "to_run_one_sequence": sum(sizes) + state.nbytes + logits,
    }


def files_of(where: Path) -> dict[str, Any]:
    """Format, and tensors and bytes by dtype, from the headers of the files alone."""
    from ..checkpoints import detect
    from ..checkpoints.tensors import Weights

    weights = Weights(where)
    dtypes: dict[str, dict[str, int]] = {}
    for name, shard in weights.home.items():
        entry = shard.entries[name]
        row = dtypes.setdefault(entry.code, {"tensors": 0, "bytes": 0})
        row["tensors"] += 1
        row["bytes"] += entry.end - entry.begin
    return {"format": detect(where), "dtypes": dtypes}


def show(figures: dict[str, Any]) -> None:
    """Prints the figures as tables."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)

    def table(title: str, *columns: str) -> Table:
        made = Table(title=title, title_justify="left", box=None, pad_edge=False)
        for place, column in enumerate(columns):
            right = place and column
            made.add_column(column, justify="right" if right else "left", overflow="fold")
        return made

    config = dict(figures["config"])
    pattern = config.pop("pattern")
    settings = table(f"{figures['model']}", "", "")
    for name, value in config.items():
        settings.add_row(name, str(value))
    for place, mixer in enumerate(pattern):
        words = ", ".join(f"{name}={value}" for name, value in mixer.items() if name != "kind")
        settings.add_row(f"pattern[{place}] {mixer['kind']}", words)
    console.print(settings)
    parts = table("\nparameters", "part", "parameters", "float32", "bfloat16")
    for part, count in [*figures["parts"].items(), ("all", figures["parameters"])]:
        parts.add_row(part, f"{count:,}", size(4 * count), size(2 * count))
    console.print(parts)
    needs = table("\nmemory", "", *DTYPES)
    for name in figures["memory"]["float32"]:
        row = (size(figures["memory"][dtype][name]) for dtype in DTYPES)
        needs.add_row(name.replace("_", " "), *row)
    console.print(needs)
    if "files" in figures:
        files = table(f"\nfiles: format {figures['files']['format']}", "dtype", "tensors", "bytes")
        for code, row in figures["files"]["dtypes"].items():
            files.add_row(code, str(row["tensors"]), size(row["bytes"]))
        console.print(files)


def size(count: int) -> str:
    """Bytes as a person reads them, powers of ten."""
    for unit, power in (("GB", 9), ("MB", 6), ("kB", 3)):
        if count >= 10**power:
            return f"{count / 10**power:.2f} {unit}"
    return f"{count} B"
