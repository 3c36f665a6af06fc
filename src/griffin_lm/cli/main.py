"""`griffin`: the table of commands, and what happens to errors.

Command files import what they need inside their functions: `griffin --help` starts no torch.
"""

import os
import sys
from typing import Annotated, NoReturn

import typer

from .. import __version__
from ..errors import GriffinError
from . import (
    ask,
    bench,
    chat,
    compare,
    convert,
    data,
    demo,
    doctor,
    evaluate,
    finetune,
    generate,
    inspect,
    pretrain,
    read,
    serve,
    verify,
)

app = typer.Typer(
    name="griffin",
    help="Run, train and understand RecurrentGemma, Griffin and Hawk.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help"]},
)
COMMANDS = (
    demo.demo,
    generate.generate,
    chat.chat,
    read.read,
    ask.ask,
    serve.serve,
    convert.convert,
    inspect.inspect,
    verify.verify,
    doctor.doctor,
    pretrain.pretrain,
    finetune.finetune,
    evaluate.evaluate,
    compare.compare,
)
GROUPS = (bench.app, data.app)
for command in COMMANDS:
    app.command()(command)
for group in GROUPS:
    app.add_typer(group)


@app.callback(invoke_without_command=True)
def about(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Run, train and understand RecurrentGemma, Griffin and Hawk."""
    if version:
        print(__version__)
        raise typer.Exit


def main() -> NoReturn:
    """The console script. Exits 0 on success, 1 on a failure it explains, 2 on wrong usage, 130 on
    Ctrl-C; errors go to standard error, without a traceback unless GRIFFIN_TRACEBACK is set.
    """
    try:
        app()
    except (GriffinError, OSError) as error:
        if os.environ.get("GRIFFIN_TRACEBACK"):
            raise
        print(f"griffin: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0)


if __name__ == "__main__":
    main()
