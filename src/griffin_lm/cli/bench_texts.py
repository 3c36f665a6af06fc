"""`griffin bench memory`, `counter`, `quality`: what long texts and rounded weights cost."""

from pathlib import Path
from typing import Annotated, Any

import typer

from . import common

Layers = Annotated[int, typer.Option(min=0, help="only so many layers; 0: all")]
Rounds = Annotated[int, typer.Option(min=1, help="both are measured in each")]
Threads = Annotated[int, typer.Option(min=0, help="0: all cores")]
Kind = Annotated[str, typer.Option(metavar="KIND", help="fp32, bf16, int8, int4")]
Append = Annotated[
    bool, typer.Option("--append", help="add the row to those that --json FILE has already")
]


def memory(
    model: Annotated[
        str, typer.Option(metavar="NAME", help="fledgling, or a preset: random weights")
    ] = "fledgling",
    weights: Kind = "bf16",
    tokens: Annotated[int, typer.Option(min=1, help="that are read")] = 100_000,
    layers: Layers = 0,
    threads: Threads = 0,
    append: Append = False,
    json: common.JsonOut = None,
) -> None:
    """Read a long text and watch the process's anonymous memory, over the bytes of the weights."""
    from ..bench.cpu import long_texts

    options = long_texts.Memory(
        model=model, weights=weights, tokens=tokens, threads=threads, layers=layers
    )
    row = long_texts.memory(options, common.said)
    _write(row, json, append)
    print(
        f"{row['over_weights'] / 1e6:.0f} MB over the weights "
        f"({row['while_reading'] / 1e6:.0f} MB of it while reading {tokens} tokens, "
        f"{row['tokens_per_s']:.0f} a second)"
    )


def counter(
    model: Annotated[
        str, typer.Option(metavar="NAME", help="a preset whose shape random weights have")
    ] = "recurrentgemma-2b",
    weights: Kind = "int8",
    tokens: Annotated[int, typer.Option(min=1, help="of a measurement")] = 16,
    layers: Layers = 0,
    rounds: Rounds = 9,
    threads: Threads = 0,
    append: Append = False,
    json: common.JsonOut = None,
) -> None:
    """Decode a million tokens into a text and two windows into it, in turns: time a token."""
    from ..bench.cpu import long_texts

    options = long_texts.Counter(
        model=model, weights=weights, tokens=tokens, layers=layers, rounds=rounds, threads=threads
    )
    row = long_texts.counter(options, common.said)
    _write(row, json, append)
    print(f"time a token at {row['far']:,} tokens over {row['near']:,}: {row['ratio']:.3f}")


def quality(
    model: Annotated[str, typer.Option(metavar="MODEL", help="as `griffin evaluate` takes it")] = (
        "fledgling"
    ),
    text: Annotated[
        Path | None, typer.Option(metavar="FILE", help="UTF-8; the bundled book unless told")
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="tokens at most; 0: all")] = 0,
    json: common.JsonOut = None,
) -> None:
    """Perplexity with weights in 8 and 4 bits, and with keys and values in 8, over bf16's."""
    from ..bench.cpu import quality as study
    from ..bench.machine import machine

    rows = study.measure(model, text, limit or None, common.said)
    print(study.table(rows))
    figures = {
        "machine": machine(),
        "commands": [common.as_typed({json: "FILE", text: "FILE"})],
        "rows": rows,
    }
    common.write_json(json, figures)


def _write(row: dict[str, Any], json: Path | None, append: bool) -> None:
    """Writes --json: the row, after those of earlier runs where it is added."""
    from ..bench.cpu import long_texts, study

    earlier = study.earlier(json) if append else None
    common.write_json(json, long_texts.figures([row], common.as_typed({json: "FILE"}), earlier))
