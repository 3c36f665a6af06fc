"""Whether the machine is ours alone while we measure: what other processes take of it."""

import os
import time
from types import TracebackType

import psutil

DISTURBED = 0.08  # share of all cores' time that others may take of a measurement
PAUSE = 0.3  # seconds over which a machine is looked at before a measurement


class Others:
    """Within, the share of all cores' time that processes of others take; `share` afterwards."""

    share = 0.0

    def __enter__(self) -> "Others":
        self._began, self._all, self._own = time.perf_counter(), _busy(), _own()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        took = (time.perf_counter() - self._began) * (os.cpu_count() or 1)
        others = (_busy() - self._all) - (_own() - self._own)
        self.share = min(max(others / took, 0.0), 1.0) if took > 0 else 0.0


def wait(longest: float) -> bool:
    """Waits until others rest, `longest` seconds at most; whether they do."""
    deadline = time.monotonic() + longest
    while True:
        with Others() as others:
            time.sleep(PAUSE)
        if others.share <= DISTURBED:
            return True
        if time.monotonic() > deadline:
            return False


def _busy() -> float:
    """Seconds that all cores have worked, or the hypervisor has taken, since the machine began."""
    times = psutil.cpu_times()
    rest = times.idle + getattr(times, "iowait", 0.0)
    guests = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)  # counted in user
    return sum(times) - rest - guests


def _own() -> float:
    """Seconds that this process and those below it have worked."""
    here = psutil.Process()
    total = 0.0
    for process in (here, *here.children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total
