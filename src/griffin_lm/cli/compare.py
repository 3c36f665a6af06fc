"""`griffin compare`: architectures side by side; a table, a plot and the figures of a study."""

from pathlib import Path
from typing import Annotated

import typer

from . import common


def compare(
    study: Annotated[
        str,
        typer.Argument(
            metavar="STUDY", help="length, recall, warpeace, books, tokens, scaling; or all"
        ),
    ],
    scale: Annotated[
        str, typer.Option(metavar="smoke|cpu|gpu", help="smoke: all studies within ten minutes")
    ] = "smoke",
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="pages, plots, figures, and finished cells")
    ] = Path("compare"),
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="a folder with warpeace.txt and books (.jsonl[.bz2|.gz]); else the bundled book",
        ),
    ] = None,
    minutes: Annotated[
        float, typer.Option(min=0, help="begin nothing that would end later; 0: all of it")
    ] = 0.0,
    only: Annotated[
        str, typer.Option(metavar="PART,PART", help="only cells whose names contain one of these")
    ] = "",
    products: Annotated[
        str,
        typer.Option(
            metavar="auto|bfloat16|float32",
            help="what training multiplies in; auto: bfloat16 where the device does in hardware",
        ),
    ] = "auto",
    device: common.Device = "auto",
    json: common.JsonOut = None,
) -> None:
    """Train and measure architectures of equal size side by side, cell by cell.

    Finished cells stay in --out: the same command goes on where it was stopped, and Ctrl-C loses
    the cell under way alone. Needs the extra `plots`.
    """
    import torch

    from ..studies.compare import compare as run
    from ..studies.registry import STUDIES
    from ..studies.study import Place

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    place = Place(torch.device(device), data, common.said, products)
    command = common.as_typed({out: "DIR", data: "DATA", json: "FILE"})
    parts = tuple(part for part in only.split(",") if part)
    found = {
        name: run(name, scale, out, place, command, minutes, parts)
        for name in (STUDIES if study == "all" else (study,))
    }
    for name in found:
        print((out / f"{name}.md").read_text(encoding="utf-8"))
    common.write_json(json, found if study == "all" else found[study])
