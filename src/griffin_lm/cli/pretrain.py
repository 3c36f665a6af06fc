"""`griffin pretrain`: trains a model from scratch by a recipe."""

from pathlib import Path
from typing import Annotated

import typer


def pretrain(
    recipe: Annotated[Path, typer.Argument(help="Python file with a function recipe()")],
    data: Annotated[Path, typer.Option(help="folder of .jsonl[.bz2|.gz] with id and text")],
    out: Annotated[Path, typer.Option(help="folder for the run")],
    resume: Annotated[str, typer.Option(help='"auto": go on where the run stopped')] = "never",
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="key=value, any field of the recipe")
    ] = None,
) -> None:
    """Train from scratch."""
    from ..errors import ConfigError
    from ..training.config import load_recipe, with_settings
    from ..training.loop import train

    if resume not in ("auto", "never"):
        raise ConfigError(f'--resume is "auto" or "never", not {resume!r}')
    config = with_settings(load_recipe(recipe), set_ or ())
    train(config, data, out, resume=resume == "auto")
