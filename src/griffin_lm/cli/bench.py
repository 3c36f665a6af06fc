"""`griffin bench`: measurements, one word each."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from . import common


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
    seed: Annotated[int, typer.Option(help="of the damage")] = 0,
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
    """Read damaged files of every kind: nothing may crash, hang, grow or load half. Exits 1 if so.

    A failing input is written out with the one command that repeats it.
    """
    from ..bench import reliability as studies
    from ..bench.machine import machine

    if repeat is not None:
        found = studies.repeat(repeat)
        for row in found:
            print(f"{row['kind']}\n{row['details']}")
        print("fails" if found else "passes")
        raise typer.Exit(1 if found else 0)
    options = studies.Options(inputs, seed, workers, failures)
    results: list[studies.Result] = []
    for study, parts in studies.chosen([name for name in what.split(",") if name]):
        with common.Meter(study.name, "batches") as meter:
            results.append(study.run(parts, options, meter))
    for result in results:
        print("\n".join([result.section, *result.notes]))
    rows = [row for result in results for row in result.rows]
    failed = sum(result.failures for result in results)
    figures = {"machine": machine(), "rows": rows}
    common.write_json(json, figures)
    if out is not None:
        command = shlex.join(["griffin", *sys.argv[1:]])
        studies.write_page(out, [result.section for result in results], command, figures)
    if failed:
        print(f"{failed} failures; their inputs are in {failures}", file=sys.stderr)
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
