"""`griffin bench`: measurements, one word each."""

import sys
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from . import bench_serve, bench_speed, bench_texts, common


class _Words(TyperGroup):
    """A group that answers an unknown word with those there are."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the first argument names; wrong usage (exit 2) where none is."""
        if args and args[0] not in self.commands:
            raise typer.BadParameter(
                f"nothing is called {args[0]!r}; there are: {', '.join(sorted(self.commands))}",
                param_hint="WHAT",
            )
        return super().resolve_command(ctx, args)


app = typer.Typer(
    name="bench",
    cls=_Words,
    help="Measure speed, memory and reliability.",
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["--help"]},
)
Out = Annotated[
    Path | None, typer.Option(metavar="DIR", help="also write the page and its figures there")
]


@app.command()
def reliability(
    what: Annotated[
        str, typer.Option(metavar="NAME,NAME", help="only these studies or readers; all of them")
    ] = "",
    inputs: Annotated[
        int, typer.Option(min=1, help="damaged files in all; 1000000 for the full count")
    ] = 20_000,
    kills: Annotated[
        int, typer.Option(min=1, help="SIGKILLs of training runs in all; 1000 for the full count")
    ] = 50,
    clients: Annotated[
        int, typer.Option(min=1, help="of a server at once; 200 for the full count")
    ] = 50,
    client_seconds: Annotated[
        float, typer.Option(min=1, help="that they go on; 300 for the full count")
    ] = 60.0,
    streams: Annotated[
        int, typer.Option(min=1, help="of another server at once; 1000 for the full count")
    ] = 200,
    restarts: Annotated[
        int, typer.Option(min=1, help="SIGKILLs and SIGTERMs of a third server in all")
    ] = 10,
    seed: Annotated[int, typer.Option(help="of the damage, the kills, the clients")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="processes")] = 1,
    failures: Annotated[
        Path, typer.Option(metavar="DIR", help="where failing inputs are kept")
    ] = Path("griffin-failures"),
    repeat: Annotated[
        Path | None, typer.Option(metavar="DIR", help="only try this kept input again")
    ] = None,
    out: Out = None,
    json: common.JsonOut = None,
) -> None:
    """Damaged files (fuzz), training runs killed at random moments (kills), servers in use (serve).

    Nothing may crash, hang, grow or load half; no checkpoint may be lost, and a run that was killed
    ends in the same bits. Clients of a server who leave, read slowly or send nonsense change no
    answer and keep no slot; sessions outlive its end. Exits 1 where a rule is broken. A failing
    input is written out with the one command that repeats it.
    """
    from ..bench import reliability as studies
    from ..bench.machine import machine

    if repeat is not None:
        found = studies.repeat(repeat)
        for row in found:
            print(f"{row['kind']}\n{row['details']}")
        print("fails" if found else "passes")
        raise typer.Exit(1 if found else 0)
    options = studies.Options(
        inputs=inputs,
        kills=kills,
        load=studies.Load(clients, client_seconds, streams, restarts),
        seed=seed,
        workers=workers,
        failures=failures,
    )
    results: dict[str, studies.Result] = {}
    for study, parts in studies.chosen([name for name in what.split(",") if name]):
        with common.Meter(study.name, study.unit) as meter:
            results[study.name] = study.run(parts, options, meter)
    for result in results.values():
        print("\n".join([result.section, *result.notes]))
    rows = [row for result in results.values() for row in result.rows]
    failed = sum(result.failures for result in results.values())
    command = common.as_typed()
    common.write_json(json, {"machine": machine(), "command": command, "rows": rows})
    if out is not None:
        studies.write_page(out, results, command, machine())
    if failed:
        print(f"{failed} failures; inputs that failed are in {failures}", file=sys.stderr)
        raise typer.Exit(1)


@app.command("full-size")
def full_size(
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="write full_size.md and full_size.json there")
    ] = Path("docs/results"),
    json: common.JsonOut = None,
) -> None:
    """Save, load and generate with RecurrentGemma-2B on random bf16 weights: time and memory."""
    from ..bench import full_size as study

    figures = study.measure(out)
    print(study.page(figures))
    common.write_json(json, figures)


@app.command()
def finetune(
    source: Annotated[
        Path,
        typer.Argument(metavar="SFT", help="folder with gsm8k_train.jsonl and gsm8k_test.jsonl"),
    ],
    limit: Annotated[int, typer.Option(min=0, help="training rows at most; 0: all")] = 0,
    test: Annotated[int, typer.Option(min=1, help="held-out rows at most")] = 400,
    epochs: Annotated[float, typer.Option(help="over the training rows")] = 3.0,
    seed: Annotated[int, typer.Option(help="of orders and adapters")] = 0,
    json: common.JsonOut = None,
) -> None:
    """Fine-tune fledgling and a small Llama 3: loss and exact match, before and after.

    All weights, LoRA and QLoRA, on rows made of GSM8K's worked solutions (MIT licence).
    """
    from ..bench import finetuning as study

    options = study.Options(limit=limit, test=test, epochs=epochs, seed=seed)
    figures = study.measure(source, options, common.said)
    figures["command"] = common.as_typed({source: "SFT", json: "FILE"})
    print(study.section(figures))
    common.write_json(json, figures)


@app.command()
def trajectories(json: common.JsonOut = None) -> None:
    """Train twice what must come to the same weights: accumulated, packed, recomputed, compiled.

    Exits 1 where weights in float64 are farther apart than the tolerance.
    """
    from ..bench import trajectories as study

    with common.Meter("trajectories", "pairs") as meter:
        figures = study.measure(meter, common.as_typed())
    print(study.section(figures))
    common.write_json(json, figures)
    if broken := study.failures(figures):
        print(f"not the same: {', '.join(broken)}", file=sys.stderr)
        raise typer.Exit(1)


@app.command()
def train(
    peers: Annotated[
        bool, typer.Option("--peers", help="transformers' models in the same rounds")
    ] = False,
    only: Annotated[
        str, typer.Option(metavar="NAME,NAME", help="only these cases: 100m, 10m, lengths")
    ] = "",
    rounds: Annotated[int, typer.Option(min=1, help="of every case")] = 3,
    bf16: Annotated[bool, typer.Option("--bf16", help="everyone in bf16 too")] = False,
    eager: Annotated[bool, typer.Option("--eager", help="ours without torch.compile")] = False,
    compile_peers: Annotated[
        bool, typer.Option("--compile-peers", help="the Llama with torch.compile as well")
    ] = False,
    seconds: Annotated[
        float, typer.Option(min=0, help="of a case, after which no round begins; 0: no limit")
    ] = 0.0,
    clock: Annotated[
        str, typer.Option(metavar="wall|processor", help="processor: on a busy machine, one thread")
    ] = "wall",
    scale: Annotated[str, typer.Option(metavar="full|toy", help="toy: sizes for a test")] = "full",
    keep: Annotated[
        bool, typer.Option("--keep", help="cases in --json's file that are not run again stay")
    ] = False,
    json: common.JsonOut = None,
) -> None:
    """Training speed: tokens/s, fraction of the matrix rate, time per token by length.

    Whole steps in interleaved rounds, and where the time of one goes.
    """
    from ..bench import train as study
    from ..bench.train.report import section

    options = study.Options(
        only=tuple(name for name in only.split(",") if name),
        scale=scale,
        peers=peers,
        rounds=rounds,
        bf16=bf16,
        compile=not eager,
        compile_peers=compile_peers,
        clock=clock,
        seconds=seconds,
    )
    figures = study.measure(options, common.said)
    figures |= {"command": common.as_typed({json: "FILE"}), "date": date.today().isoformat()}
    if keep and json is not None and json.is_file():
        figures = study.merged(json, figures)
    print(section(figures))
    common.write_json(json, figures)


app.command()(bench_speed.decode)
app.command()(bench_speed.prefill)
app.command()(bench_speed.scan)
app.command()(bench_texts.memory)
app.command()(bench_texts.counter)
app.command()(bench_texts.quality)
app.command()(bench_serve.serve)
