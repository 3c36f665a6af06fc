"""`griffin inspect`: what a model is and what it needs, before any weight is loaded."""

from typing import TYPE_CHECKING, Any

from . import common

if TYPE_CHECKING:
    from rich.table import Table


def inspect(
    model: common.Model,
    config: common.Config = None,
    json: common.JsonOut = None,
    offline: common.Offline = False,
) -> None:
    """Show a model's config, parameters, files and memory, without loading it.

    Of a hub id nothing is fetched but its small files and the headers of its weights. MODEL may
    also be the name of a preset, such as griffin-7b: nothing is needed on disk.
    """
    from ..checkpoints.hub import on_terminal
    from ..inference.inspection import inspect as look

    figures = look(model, common.config_of(config), offline or None, on_terminal())
    show(figures)
    common.write_json(json, figures)


def show(figures: dict[str, Any]) -> None:
    """Prints the figures as tables."""
    from rich.console import Console

    from ..checkpoints.hub import size
    from ..inference.inspection import fits

    console = Console(highlight=False)
    kind = "instruction-tuned" if figures["instruction_tuned"] else "base model"
    console.print(f"{figures['model']}: {kind}")
    settings = _table("", "")
    config = dict(figures["config"])
    pattern = config.pop("pattern")
    for name, value in config.items():
        settings.add_row(name, str(value))
    for place, mixer in enumerate(pattern):
        words = ", ".join(f"{name}={value}" for name, value in mixer.items() if name != "kind")
        settings.add_row(f"pattern[{place}] {mixer['kind']}", words)
    console.print(settings)
    console.print("\nparameters")
    parts = _table("part", "parameters", "float32", "bfloat16")
    for part, count in [*figures["parts"].items(), ("all", figures["parameters"])]:
        parts.add_row(part, f"{count:,}", size(4 * count), size(2 * count))
    console.print(parts)
    memory, at_hand = figures["memory"], figures["at_hand"]
    console.print("\nwhat it needs in memory")
    needs = _table("", *memory)
    for name in next(iter(memory.values())):
        if not any(row[name] for row in memory.values()):
            continue  # a state that does not grow, a model without recurrence
        needs.add_row(name.replace("_", " "), *(size(row[name]) for row in memory.values()))
    console.print(needs)
    free, total = size(at_hand["free"]), size(at_hand["total"])
    console.print(f"here: {free} free of {total} on {at_hand['device']}; {fits(figures)}")
    if "weight_types" in figures:
        console.print("\nweights are quantised: --quantize rounds nothing more")
        types = _table("stored as", "weights", "parameters", "bytes", "bits a weight")
        for kind, row in figures["weight_types"].items():
            counts = (str(row["weights"]), f"{row['parameters']:,}", size(row["bytes"]))
            types.add_row(kind, *counts, f"{row['bits_per_weight']:.2f}")
        console.print(types)
    else:
        estimates = (f"{kind} {size(b)}" for kind, b in figures["weights_if_quantised"].items())
        console.print(f"quantised weights (--quantize): {', '.join(estimates)}")
    if "files" in figures:
        _show_files(console, figures)


def _show_files(console: Any, figures: dict[str, Any]) -> None:
    from ..checkpoints.hub import size

    files, hub = figures["files"], figures["hub"]
    form = f"format {files['format']}" if files["format"] else "headers not read"
    where = f" on the hub: {hub['id']}@{hub['commit'][:8]}" if hub and hub["commit"] else ""
    if files["dtypes"]:
        console.print(f"\nweights: {form}")
        dtypes = _table("dtype", "tensors", "bytes")
        for code, row in files["dtypes"].items():
            dtypes.add_row(code, str(row["tensors"]), size(row["bytes"]))
        console.print(dtypes)
    console.print(f"\nfiles{where}")
    names = _table("file", "bytes")
    for name, bytes_ in files["files"].items():
        names.add_row(name, f"{bytes_:,}")
    console.print(names)
    if where:
        console.print(f"chosen: {files['chosen']}; not downloaded")


def _table(*columns: str) -> "Table":
    from rich.table import Table

    made = Table(box=None, pad_edge=False)
    for place, column in enumerate(columns):
        right = place and column
        made.add_column(column, justify="right" if right else "left", overflow="fold")
    return made
