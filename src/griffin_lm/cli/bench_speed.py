"""`griffin bench decode`, `prefill`, `scan`: speed on a CPU, beside its limits and the peers."""

from pathlib import Path
from typing import Annotated, Any

import typer

from . import common

Preset = Annotated[str, typer.Option(metavar="NAME", help="whose shape random weights have")]
Layers = Annotated[int, typer.Option(min=0, help="only so many layers; 0: all")]
Scale = Annotated[int, typer.Option(min=1, help="widths, heads and vocabulary divided by it")]
Weights = Annotated[
    str, typer.Option(metavar="KIND,KIND", help="of fp32, bf16, int8, int4; measured one by one")
]
Rounds = Annotated[int, typer.Option(min=1, help="every contender is measured in each")]
Threads = Annotated[int, typer.Option(min=0, help="of every contender; 0: all cores")]
Patience = Annotated[
    float,
    typer.Option(min=0, help="seconds to wait for other processes to rest; 0: take it as it comes"),
]
Peers = Annotated[
    bool,
    typer.Option("--peers", help="llama.cpp and transformers too: pip install 'griffin-lm[peers]'"),
]
Who = Annotated[
    str,
    typer.Option(metavar="NAME,NAME", help="only these of griffin, llama.cpp, transformers"),
]
PeerType = Annotated[str, typer.Option(metavar="DTYPE", help="of transformers: bf16 or fp32")]
Cache = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="keep llama.cpp's random models there for the next time"),
]
Append = Annotated[
    bool, typer.Option("--append", help="add these rounds to those that --json FILE has already")
]
Profile = Annotated[
    bool, typer.Option("--profile", help="also where the time goes, part by part, afterwards")
]


def decode(
    preset: Preset = "recurrentgemma-2b",
    layers: Layers = 0,
    scale: Scale = 1,
    weights: Weights = "bf16,int8,int4",
    batch: Annotated[
        str, typer.Option(metavar="N,N", help="rows at once; peers are measured at 1")
    ] = "1,8",
    context: Annotated[
        str, typer.Option(metavar="N,N", help="tokens read before; states are put there")
    ] = "0,32768",
    tokens: Annotated[int, typer.Option(min=1, help="of a measurement")] = 8,
    rounds: Rounds = 5,
    threads: Threads = 0,
    patience: Patience = 10.0,
    peers: Peers = False,
    who: Who = "",
    transformers_dtype: PeerType = "bf16",
    cache: Cache = None,
    append: Append = False,
    profile: Profile = False,
    json: common.JsonOut = None,
) -> None:
    """Decode on random weights: tokens a second, and the share of the memory's speed.

    The bandwidth of reading memory, with as many threads, is read again before and after each
    contender in each round; rows hold medians over rounds.
    """
    from ..bench.cpu import study

    options = study.Options(
        preset=preset,
        layers=layers,
        scale=scale,
        weights=_words(weights),
        who=study.names(who, peers),
        transformers_dtype=transformers_dtype,
        rounds=rounds,
        threads=threads,
        patience=patience,
        cache=cache,
    )
    what = study.Decode(batches=_numbers(batch), contexts=_numbers(context), tokens=tokens)
    _finish(study.decode(options, what, profile, common.said), append, json, cache)


def prefill(
    preset: Preset = "recurrentgemma-2b",
    layers: Layers = 0,
    scale: Scale = 1,
    weights: Weights = "bf16,int8",
    length: Annotated[str, typer.Option(metavar="N,N", help="tokens of the prompts")] = "512,2048",
    rounds: Rounds = 3,
    threads: Threads = 0,
    patience: Patience = 10.0,
    peers: Peers = False,
    who: Who = "",
    transformers_dtype: PeerType = "bf16",
    cache: Cache = None,
    append: Append = False,
    profile: Profile = False,
    json: common.JsonOut = None,
) -> None:
    """Read prompts on random weights: tokens a second, and the share of the matrix rate.

    That rate is the best of fp32 and bf16 products of large matrices, read in every round. The
    RG-LRU is measured alone beside each of ours.
    """
    from ..bench.cpu import study

    options = study.Options(
        preset=preset,
        layers=layers,
        scale=scale,
        weights=_words(weights),
        who=study.names(who, peers),
        transformers_dtype=transformers_dtype,
        rounds=rounds,
        threads=threads,
        patience=patience,
        cache=cache,
    )
    what = study.Prefill(lengths=_numbers(length))
    _finish(study.prefill(options, what, profile, common.said), append, json, cache)


def scan(
    steps: Annotated[int, typer.Option(min=2, help="tokens")] = 2048,
    width: Annotated[int, typer.Option(min=1, help="channels")] = 2560,
    rounds: Rounds = 9,
    threads: Threads = 0,
    patience: Patience = 10.0,
    append: Append = False,
    json: common.JsonOut = None,
) -> None:
    """Run h = a h + b and the RG-LRU in fp32: shares of copying their arrays, both directions."""
    from ..bench.cpu import study

    what = study.Scan(steps=steps, width=width, rounds=rounds, threads=threads, patience=patience)
    _finish(study.scan(what, common.said), append, json)


def _finish(measured: Any, append: bool, json: Path | None, cache: Path | None = None) -> None:
    """Prints the table of what was measured, and writes --json."""
    from ..bench.cpu import study

    figures = study.figures(
        measured,
        common.as_typed({json: "FILE", cache: "DIR"}),
        study.earlier(json) if append else None,
    )
    print(study.table(figures["rows"]))
    common.write_json(json, figures)


def _words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def _numbers(text: str) -> list[int]:
    """Whole numbers, separated by commas; anything else is wrong usage."""
    try:
        return [int(word) for word in _words(text)]
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is no list of whole numbers") from error
