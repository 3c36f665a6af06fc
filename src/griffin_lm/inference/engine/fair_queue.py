"""A queue with a limit that is fair among owners: each has its turn, whoever asks how much."""

from collections import OrderedDict, deque

from ...errors import Overloaded
from .request import Job


class FairQueue:
    """First come, first served within an owner; owners take turns. Not for several threads.

    limit: jobs that may wait, of all owners together.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._lines: OrderedDict[str, deque[Job]] = OrderedDict()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def add(self, job: Job, free: int = 0) -> None:
        """Lets a job wait. Raises `Overloaded` where as many wait as may.

        free: places for which nobody has to wait; so many more are taken.
        """
        if self._length >= self.limit + free:
            raise Overloaded(f"{self._length} requests are waiting, which is the limit; try later")
        self._lines.setdefault(job.request.owner, deque()).append(job)
        self._length += 1

    def take(self) -> Job | None:
        """The next job, whose owner then stands behind the others."""
        if not self._lines:
            return None
        owner, line = self._lines.popitem(last=False)
        job = line.popleft()
        self._length -= 1
        if line:
            self._lines[owner] = line
        return job

    def remove_ended(self) -> list[Job]:
        """Takes out those that were cancelled or whose time has run out."""
        gone: list[Job] = []
        for owner in list(self._lines):
            line = self._lines[owner]
            ended = [job for job in line if job.cancelled or job.late]
            gone += ended
            kept = deque(job for job in line if job not in ended)
            self._length -= len(line) - len(kept)
            if kept:
                self._lines[owner] = kept
            else:
                del self._lines[owner]
        return gone
