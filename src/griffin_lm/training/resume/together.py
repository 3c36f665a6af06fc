"""Several processes save one checkpoint: who writes what, and that all see it fail or none."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from ...errors import GriffinError, TrainingError
from ...shapes import JSON
from . import disk, protocol, shards

T = TypeVar("T")


class _Failure(NamedTuple):
    """What went wrong on one process, as it travels to the others."""

    rank: int
    number: int | None  # an OSError's errno
    reason: str
    ours: bool  # a GriffinError, whose words are for users


class Together:
    """The processes of one run, by a group that can send objects and that nobody else uses."""

    def __init__(self, group: Any, rank: int, size: int) -> None:
        self.group, self.rank, self.size = group, rank, size

    def agreed(self, task: Callable[[], T]) -> list[T]:
        """Every process's result. Where one fails, all raise the same, naming that process.

        Raises OSError for a disk, TrainingError for anything else. All call it together.
        """
        import torch.distributed as dist

        mine: Any
        try:
            mine = task()
        except Exception as error:  # also of libraries; it is raised again by all
            mine = self._failure(error)
        every: list[Any] = [None] * self.size
        dist.all_gather_object(every, mine, group=self.group)
        for one in every:
            if isinstance(one, _Failure):
                self._raise(one)
        return every

    def first(self, task: Callable[[], T]) -> T:
        """The first process's result, on all; the task runs there only."""
        result: Any = self.agreed(lambda: task() if self.rank == 0 else None)[0]
        return result

    def _failure(self, error: Exception) -> _Failure:
        if isinstance(error, GriffinError):
            return _Failure(self.rank, None, str(error), True)
        if isinstance(error, OSError):
            known = isinstance(error, shards.ProcessFailed)
            reason = str(error.strerror or error)
            return _Failure(
                self.rank, error.errno or 0, reason if known else self._named(reason), False
            )
        return _Failure(self.rank, None, self._named(f"{type(error).__name__}: {error}"), False)

    def _named(self, reason: str) -> str:
        return f"process {self.rank}: {reason}"

    @staticmethod
    def _raise(failure: _Failure) -> None:
        if failure.number is not None:
            raise shards.ProcessFailed(failure.number, failure.reason)
        raise TrainingError(failure.reason)

    def commit(self, out: Path, step: int, value: dict[str, Any], keep: int) -> None:
        """As `protocol.commit`, by all processes; `out` must be a folder that all of them see.

        Raises the same TrainingError on all.
        """
        try:
            aside = out / self.first(lambda: protocol.begin(out, step).name)
            try:
                rows = self.agreed(lambda: self._part(value, aside))
                known: JSON = {name: row for part in rows for name, row in part.items()}
                facts: JSON = {"processes": self.size}
                self.first(lambda: protocol.finish(out, step, aside, keep, facts, known).name)
            except Exception:
                if self.rank == 0:
                    with suppress(OSError):  # else removed before the next one is written
                        disk.DISK.remove(aside)
                raise
        except OSError as error:
            raise protocol.could_not_save(out, step, error) from error

    def _part(self, value: dict[str, Any], aside: Path) -> JSON:
        if not aside.is_dir():
            raise TrainingError(
                f"process {self.rank} does not see {aside}: give an --out on a disk that all "
                "machines share"
            )
        return shards.write(value, aside, self.rank, self.group)
