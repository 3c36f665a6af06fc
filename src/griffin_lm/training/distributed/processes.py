"""What the trainer asks of the processes that train one model; and the answers of a single one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch.distributed as dist
from torch import Tensor, nn

from ..batch import World
from ..config import TrainConfig
from ..resume import Saver, load

T = TypeVar("T")


@runtime_checkable
class Processes(Protocol):
    """All call the same methods in the same order; each gets the same answer, errors included."""

    world: World

    def prepare(self, model: nn.Module, config: TrainConfig, compiled: bool) -> None:
        """Puts the model, whole and the same on each, on the device; each keeps its part of it.

        Before the optimiser is made: parameters are replaced.
        """
        ...

    def totals(self, *values: float | int) -> list[float]:
        """Each number's sum over the processes."""
        ...

    def most(self, *values: float | int) -> list[float]:
        """Each number's maximum over the processes."""
        ...

    def texts(self, mine: str) -> list[str]:
        """What each process has to say, by rank."""
        ...

    def first(self, task: Callable[[], T]) -> T:
        """What the task gives on the first process, where alone it runs; small, plain values."""
        ...

    def norm(self, gradients: list[Tensor]) -> Tensor:
        """The norm of all gradients together."""
        ...

    def saver(self, out: Path, keep: int) -> Saver:
        """What writes this run's checkpoints."""
        ...

    def load(self, path: Path, model: nn.Module, optimizer: Any) -> dict[str, Any]:
        """A checkpoint's content for this process, whatever number of processes wrote it.

        model, optimizer: prepared; they are only looked at.
        """
        ...


class Alone:
    """One process."""

    def __init__(self, world: World) -> None:
        self.world = world

    def prepare(self, model: nn.Module, config: TrainConfig, compiled: bool) -> None:
        """To the device."""
        model.to(self.world.device)

    def totals(self, *values: float | int) -> list[float]:
        """As they are."""
        return [float(value) for value in values]

    def most(self, *values: float | int) -> list[float]:
        """As they are."""
        return [float(value) for value in values]

    def texts(self, mine: str) -> list[str]:
        """Its own."""
        return [mine]

    def first(self, task: Callable[[], T]) -> T:
        """What it gives."""
        return task()

    def norm(self, gradients: list[Tensor]) -> Tensor:
        """Of all."""
        return nn.utils.get_total_norm(gradients)

    def saver(self, out: Path, keep: int) -> Saver:
        """See Processes.saver."""
        return Saver(out, keep)

    def load(self, path: Path, model: nn.Module, optimizer: Any) -> dict[str, Any]:
        """See Processes.load."""
        return load(path)


def whole(tensor: Tensor) -> Tensor:
    """A tensor of which each process keeps a part, put together; all of them call it.

    Any other tensor is itself.
    """
    put_together = getattr(tensor, "full_tensor", None)  # a DTensor's
    return tensor if put_together is None else put_together()


def processes_of(world: World) -> Processes:
    """One process alone, unless it has been joined with others (see `joined`)."""
    if not (dist.is_available() and dist.is_initialized()):
        return Alone(world)
    from .many import Many  # FSDP and DTensor take a second to import

    return Many(world)
