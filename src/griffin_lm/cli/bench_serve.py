"""`griffin bench serve`: the engine beside the bare loop, sessions on disk."""

from pathlib import Path
from typing import Annotated

import typer

from . import common


def serve(
    preset: Annotated[
        str, typer.Option(metavar="NAME", help="whose shape random weights have")
    ] = "recurrentgemma-2b",
    layers: Annotated[int, typer.Option(min=0, help="only so many layers; 0: all")] = 0,
    scale: Annotated[
        int, typer.Option(min=1, help="widths, heads and vocabulary divided by it")
    ] = 1,
    weights: Annotated[str, typer.Option(metavar="KIND", help="fp32, bf16, int8 or int4")] = "int8",
    streams: Annotated[int, typer.Option(min=1, help="requests at once")] = 8,
    context: Annotated[int, typer.Option(min=0, help="tokens that each has read before")] = 32_768,
    tokens: Annotated[int, typer.Option(min=1, help="steps of a measurement")] = 8,
    rounds: Annotated[int, typer.Option(min=1, help="every contender is measured in each")] = 5,
    threads: Annotated[int, typer.Option(min=0, help="0: all cores")] = 0,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="write serving.md and serving.json there")
    ] = None,
    json: common.JsonOut = None,
) -> None:
    """The server's engine on random weights: over the bare loop; sessions on disk.

    Rounds in turn: the bare batched loop, the engine with as many requests, the first token of a
    fresh prompt and of a session that has read a million tokens, saving, loading, a bare fsync.
    """
    from ..bench import serving as study

    options = study.Options(
        preset=preset,
        layers=layers,
        scale=scale,
        weights=weights,
        streams=streams,
        context=context,
        tokens=tokens,
        rounds=rounds,
        threads=threads,
    )
    with common.Meter("serve", "rounds") as meter:
        figures = study.measure(options, meter)
    print(study.table(figures))
    common.write_json(json, figures)
    if out is not None:
        common.write_json(out / "serving.json", figures)
        command = common.as_typed()
        (out / "serving.md").write_text(study.page(figures, command), encoding="utf-8")
