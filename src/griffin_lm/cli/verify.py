"""`griffin verify`: a report that proves a checkpoint, on these very weights."""

from pathlib import Path
from typing import Annotated

import typer

from . import common
from .stages import Stages


def verify(
    model: common.Model,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="write the report there, not to the screen")
    ] = None,
    random: Annotated[
        bool, typer.Option("--random", help="MODEL is a preset: verify random weights of it")
    ] = False,
    long: Annotated[
        bool, typer.Option("--long", help="also read past the model's own window (minutes more)")
    ] = False,
    json: common.JsonOut = None,
    device: common.Device = "auto",
    dtype: common.DType = "auto",
    quantize: common.Quantize = None,
    kernels: common.Kernels = "auto",
    config: common.Config = None,
    tokenizer: common.Tokenizer = None,
    offline: common.Offline = False,
) -> None:
    """Prove a checkpoint: inventory, hashes, invariants, the papers' equations, transformers.

    Prints a report in Markdown, to paste; exits with 1 if any line fails. The arithmetic is float32
    if the memory at hand allows it, else that of the files; --dtype chooses.
    """
    from ..evals.verify import verify as run

    stages = Stages()
    report = run(
        model,
        device=device,
        dtype=dtype,
        quantize=quantize,
        kernels=kernels,
        config=common.config_of(config),
        tokenizer=tokenizer,
        offline=offline or None,
        random=random,
        long=long,
        progress=stages,
    )
    stages.close()
    report.facts = {"command": common.as_typed()} | report.facts
    common.write_json(json, report.to_dict())
    if out is None:
        print(report.to_markdown(), end="")
    else:
        out.write_text(report.to_markdown(), encoding="utf-8")
        print(report.verdict)
    if report.failed:
        raise typer.Exit(1)
