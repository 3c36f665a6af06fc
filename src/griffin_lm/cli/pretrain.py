"""`griffin pretrain`: trains a model from scratch by a recipe."""

from pathlib import Path
from typing import Annotated

import typer

from .common import Device


def pretrain(
    recipe: Annotated[Path, typer.Argument(help="Python file with a function recipe()")],
    data: Annotated[Path, typer.Option(help="what the recipe's feed reads")],
    out: Annotated[Path, typer.Option(help="folder for the run")],
    resume: Annotated[str, typer.Option(help='"auto": go on where the run stopped')] = "never",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="key=value, any field of the recipe or of its feed"),
    ] = None,
    device: Device = "auto",
) -> None:
    """Train from scratch. On SIGTERM or Ctrl-C the run is saved, and --resume auto goes on.

    Under torchrun its processes train one model together.
    """
    from ..errors import ConfigError
    from ..training.config import load_recipe, with_settings
    from ..training.pretraining import pretrain

    if resume not in ("auto", "never"):
        raise ConfigError(f'--resume is "auto" or "never", not {resume!r}')
    config = with_settings(load_recipe(recipe), set_ or ())
    if code := pretrain(config, data, out, resume == "auto", device):
        raise typer.Exit(code)
