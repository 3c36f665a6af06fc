"""`griffin finetune`: teaches a model from rows with answers: all weights, LoRA, or QLoRA."""

from pathlib import Path
from typing import Annotated

import typer

from . import common


def finetune(
    model: common.Model,
    data: Annotated[
        Path, typer.Option(help=".jsonl (also .gz, .bz2): conversations, or prompt and completion")
    ],
    out: Annotated[Path, typer.Option(help="folder for the run and what it makes")],
    lora: Annotated[
        bool, typer.Option("--lora", help="train an adapter; the model's own weights stay")
    ] = False,
    qlora: Annotated[
        bool, typer.Option("--qlora", help="the same on a base in 4 bits (--lora --quantize int4)")
    ] = False,
    resume: Annotated[str, typer.Option(help='"auto": go on where the run stopped')] = "never",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="key=value: epochs, rank, targets, ...; see docs/finetuning.md"),
    ] = None,
    merge: Annotated[
        bool,
        typer.Option("--merge", help="also write OUT/merged: the model with its adapter inside"),
    ] = False,
    max_bad: Annotated[
        int, typer.Option(min=0, help="malformed lines that are left out; more end it")
    ] = 10,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="only show what would be learned, and by what")
    ] = False,
    device: common.Device = "auto",
    dtype: common.DType = "auto",
    quantize: common.Quantize = None,
    kernels: common.Kernels = "auto",
    config: common.Config = None,
    tokenizer: common.Tokenizer = None,
    offline: common.Offline = False,
) -> None:
    """Fine-tune on answers: OUT/model, or with --lora OUT/adapter in peft's layout.

    The mask of a row is shown token by token before the first step. On SIGTERM or Ctrl-C the run is
    saved, and --resume auto goes on. Under torchrun, one of its processes.
    """
    from rich.console import Console

    from ..checkpoints.hub import on_terminal
    from ..errors import ConfigError
    from ..training.config import with_settings
    from ..training.distributed import joined
    from ..training.finetuning.config import FinetuneConfig
    from ..training.finetuning.run import open_base, prepare

    if resume not in ("auto", "never"):
        raise ConfigError(f'--resume is "auto" or "never", not {resume!r}')
    if qlora and quantize not in (None, "int4"):
        raise ConfigError(f"--qlora rounds to int4; say --lora --quantize {quantize} instead")
    adapter = lora or qlora
    if merge and not adapter:
        raise ConfigError("--merge goes with --lora or --qlora: all weights are written anyway")
    settled = with_settings(FinetuneConfig(), set_ or ())
    assert isinstance(settled, FinetuneConfig)
    with joined(device) as world:
        with common.Meter("loading", "MB", 1e6) as meter:
            base = open_base(
                model,
                adapter=adapter,
                device=device if world.size == 1 else str(world.device),
                dtype=dtype,
                quantize="int4" if qlora else quantize,
                kernels=kernels,
                config=common.config_of(config),
                tokenizer=tokenizer,
                offline=offline or None,
                progress=meter,
                watch=on_terminal(),
            )
        with common.Meter("reading", "MB", 1e6) as meter:
            run = prepare(
                base,
                data,
                out,
                settled,
                adapter=adapter,
                max_bad=max_bad,
                progress=meter,
                world=world if world.size > 1 else None,
            )
        if world.rank == 0:
            run.describe(Console())
        if dry_run:
            return
        if code := run.run(resume == "auto"):
            raise typer.Exit(code)
        for folder in run.finish(merge):
            if world.rank == 0:
                print(f"wrote {folder}")
