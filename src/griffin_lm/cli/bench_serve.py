"""`griffin bench serve`: engine, delay, parked sessions, a long text."""

from pathlib import Path
from typing import Annotated, Any

import typer

from . import common


def serve(
    only: Annotated[
        str,
        typer.Option(metavar="NAME,NAME", help="only these of engine, delay, parked, reading"),
    ] = "",
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
    delay_streams: Annotated[int, typer.Option(min=1, help="streams at once (delay)")] = 32,
    delay_tokens: Annotated[int, typer.Option(min=1, help="of each of them")] = 200,
    sessions: Annotated[int, typer.Option(min=1, help="that are parked")] = 10_000,
    read_tokens: Annotated[int, typer.Option(min=1, help="of the long text")] = 1_000_000,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="write serving.md, serving.json and a plot there; parts that are there and were "
            "not measured now stay",
        ),
    ] = None,
    json: common.JsonOut = None,
) -> None:
    """The engine on random weights; the server's delay, parked sessions, a long text on fledgling.

    engine: rounds in turn of the bare batched loop, the engine with as many requests, the first
    token of a fresh prompt and of a session that has read a million tokens, saving, loading, a bare
    fsync. The others: a server in a process of its own.
    """
    from ..bench.serving import page, plot, study
    from ..bench.serving.engine import Options

    options = study.Options(
        of_engine=Options(
            preset=preset,
            layers=layers,
            scale=scale,
            weights=weights,
            streams=streams,
            context=context,
            tokens=tokens,
            rounds=rounds,
            threads=threads,
        ),
        streams=delay_streams,
        stream_tokens=delay_tokens,
        sessions=sessions,
        tokens=read_tokens,
    )
    parts = study.chosen(only)
    before = study.earlier(None if out is None else out / "serving.json")
    measured: dict[str, list[Any]] = {}
    for name in parts:
        part = study.PARTS[name]
        with common.Meter(name, part.unit) as meter:
            measured[name] = part.measure(options, meter)
    command = common.as_typed({out: "docs/results"})
    figures = study.figures(measured, options, command, {} if out is None else before)
    print(page.table(figures))
    common.write_json(json, figures)
    if out is not None:
        common.write_json(out / "serving.json", figures)
        (out / "serving.md").write_text(page.page(figures), encoding="utf-8")
        plot.draw(figures, out / page.PLOT)
