"""`griffin convert`: a checkpoint in another format, read back to the bit."""

from pathlib import Path
from typing import Annotated

import typer

from . import common
from .stages import Stages


def convert(
    src: Annotated[
        str, typer.Argument(metavar="SRC", help="a checkpoint's path, a hub id, or fledgling")
    ],
    dst: Annotated[Path, typer.Argument(metavar="DST", help="the folder to write")],
    format: Annotated[
        str,
        typer.Option(
            "--format", metavar="F", help="griffin, huggingface, deepmind-torch or deepmind-flax"
        ),
    ],
    dtype: Annotated[
        str, typer.Option(help="auto (as it is), float32, bfloat16, float16")
    ] = "auto",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="DST may hold a checkpoint, which is replaced")
    ] = False,
    no_check: Annotated[
        bool, typer.Option("--no-check", help="do not read back what was written")
    ] = False,
    quantize: common.Quantize = None,
    calibrate: Annotated[
        str | None,
        typer.Option(
            metavar="own|FILE",
            help="with --quantize int4: fit the rounding to a text, which the model writes itself "
            "(own), or a UTF-8 file",
        ),
    ] = None,
    config: common.Config = None,
    tokenizer: common.Tokenizer = None,
    offline: common.Offline = False,
    adapter: common.Adapter = None,
    json: common.JsonOut = None,
) -> None:
    """Write a checkpoint in another format; tokenizer and card travel, the dtype stays.

    With --adapter a LoRA adapter is merged into the weights that are written. With --quantize the
    matrices are rounded to 8 or 4 bits, one at a time, in the format griffin: loading the result
    rounds nothing, and gives the same bits as --quantize at every load would. With --calibrate the
    model is loaded whole and reads 32,768 tokens: better int4 weights, of the same size and speed.

    Everything is read back and compared to the bit with what was read, unless --no-check.
    """
    import dataclasses

    from ..checkpoints.hub import on_terminal
    from ..inference.converting import convert as run
    from ..inference.loading import pick_device, pick_dtype
    from ..inference.resolution import find

    kind = None if dtype == "auto" else pick_dtype(dtype, pick_device("cpu"))
    stages = Stages("parameters")
    done = run(
        find(src, offline or None, watch=on_terminal()),
        dst,
        format,
        dtype=kind,
        config=common.config_of(config),
        tokenizer=tokenizer,
        overwrite=overwrite,
        check=not no_check,
        name=src,
        progress=stages,
        adapter=adapter,
        quantize=quantize,
        calibrate=calibrate,
    )
    stages.close()
    common.write_json(json, dataclasses.asdict(done))
    for name, size in done.files.items():
        print(f"{size:>15,}  {name}")
    total = sum(done.files.values())
    print(
        f"{done.source_format} to {done.format}: {done.parameters:,} parameters in "
        f"{', '.join(done.dtypes)}, {total:,} bytes, {done.seconds:.1f} s"
    )
    print("read back and compared: the same bits" if done.checked else "not read back (--no-check)")
    if not done.tokenizer:
        print("there was no tokenizer beside the weights; `griffin` needs one to load this")
