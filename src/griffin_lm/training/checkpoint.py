"""Training checkpoints: everything that a run needs to go on as if it had not been stopped."""

import os
from pathlib import Path
from typing import Any

import torch

from ..errors import CheckpointCorrupt, TrainingError
from ..models.griffin import Griffin
from ..models.state import State

NAME = "training.pt"


def save(folder: Path, content: dict[str, Any]) -> None:
    """Writes `folder`/training.pt: aside, flushed to the disk, then put in place."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f"{NAME}.part"
    try:
        with temporary.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(folder / NAME)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise TrainingError(
            f"could not write {folder / NAME} ({error}); the one before it is kept, free some "
            "space and run the same command with --resume auto"
        ) from error


def load(folder: Path) -> dict[str, Any] | None:
    """The content of the folder's training.pt, or None if there is none."""
    path = folder / NAME
    if not path.exists():
        return None
    try:
        return torch.load(path, weights_only=True)
    except Exception as error:  # torch raises many kinds for a broken file
        raise CheckpointCorrupt(
            f"{path} cannot be read ({error}); remove it to start the run again"
        ) from error


def state_to_list(state: State) -> list[torch.Tensor]:
    """A carried state as plain tensors."""
    layers = [tensor for layer in state.layers for tensor in layer]
    return [*layers, state.read, state.position, state.due]


def state_from_list(model: Griffin, tensors: list[torch.Tensor]) -> State:
    """The inverse of state_to_list."""
    left = iter(tensors)
    shape = model.empty_state(1)
    layers = tuple(type(layer)(*(next(left) for _ in layer)) for layer in shape.layers)
    return State(layers, next(left), next(left), next(left), model.origin)
