"""Many processes, by torch.distributed: sums, agreement, parts of the model, one checkpoint."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from ..batch import World
from ..config import TrainConfig
from ..resume import Saver, Together, content, shards
from .sharding import cut, part, shard

T = TypeVar("T")


class Many:
    """One of the processes of a default group; see Processes.

    What is agreed upon is a few numbers on the CPU, by gloo whatever moves the weights; saving has
    a group of its own, since it goes on in a thread.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.mesh = init_device_mesh(world.device.type, (world.size,))
        self._small = dist.new_group(backend="gloo")
        self._together = Together(self._small, world.rank, world.size)
        self._saving = Together(dist.new_group(backend="gloo"), world.rank, world.size)

    def prepare(self, model: nn.Module, config: TrainConfig, compiled: bool) -> None:
        """See Processes.prepare. Compiled blocks gather fp32: a group inside would break graphs."""
        shard(model, self.mesh, config.bf16 and not compiled)
        model.to(self.world.device)  # what is no parameter
        # dropout must differ from rank to rank; what drew the weights must not have
        torch.manual_seed(config.seed + self.world.rank)

    def totals(self, *values: float | int) -> list[float]:
        """See Processes.totals."""
        return self._reduced(values, dist.ReduceOp.SUM)

    def most(self, *values: float | int) -> list[float]:
        """See Processes.most."""
        return self._reduced(values, dist.ReduceOp.MAX)

    def _reduced(self, values: tuple[float | int, ...], how: Any) -> list[float]:
        numbers = torch.tensor(values, dtype=torch.float64, device="cpu")
        dist.all_reduce(numbers, how, group=self._small)
        return numbers.tolist()

    def texts(self, mine: str) -> list[str]:
        """See Processes.texts."""
        return self._together.agreed(lambda: mine)

    def first(self, task: Callable[[], T]) -> T:
        """See Processes.first."""
        return self._together.first(task)

    def norm(self, gradients: list[Tensor]) -> Tensor:
        """See Processes.norm."""
        total = nn.utils.get_total_norm(gradients)
        return total.full_tensor() if isinstance(total, DTensor) else total

    def saver(self, out: Path, keep: int) -> Saver:
        """See Processes.saver."""
        return Saver(out, keep, together=self._saving)

    def load(self, path: Path, model: nn.Module, optimizer: Any) -> dict[str, Any]:
        """See Processes.load. The path was verified by whoever found it."""
        found: list[dict[str, Any]] = []
        self._together.agreed(lambda: found.append(self._read(path, model, optimizer)))
        return found[0]

    def _read(self, path: Path, model: nn.Module, optimizer: Any) -> dict[str, Any]:
        rank, size, _ = self.world
        if shards.are_in(path):
            return shards.read(path, rank, size, lambda shape, dtype: part(shape, dtype, self.mesh))
        saved = content.read(path)
        shards.refuse_carried(saved["state"], path, 1, size)
        if rank != 0:
            saved["random"] = None
        cut(saved, model, optimizer)
        return saved
