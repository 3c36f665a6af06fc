"""Worker processes from outside: jobs given, hangs and ends noticed."""

import multiprocessing
import os
import signal
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from . import worker
from .reader import Reader

LONGEST_CPU = 10.0  # seconds of processor time for one input
LONGEST_WALL = 120.0  # seconds; the machine may be busy with other things
_SPAWN = multiprocessing.get_context("spawn")
_ENVIRONMENT = {
    "RUST_BACKTRACE": "0",
    "TOKENIZERS_PARALLELISM": "false",
    "MALLOC_ARENA_MAX": "2",
    "OMP_NUM_THREADS": "1",
}

Job = tuple[str, Any, int, Any]
"""(reader, seed, first input, beyond the last), or of an input that was kept: (reader, folder,
number, (variant, repaired))."""


class Worker:
    """A process, its connection, its slot, the job that it has."""

    def __init__(self, readers: dict[str, Reader], home: Path, number: int) -> None:
        self.log, self.job = home / f"worker-{number}.log", None
        self.slot = _SPAWN.RawArray("d", worker.SLOTS)
        self.connection, theirs = _SPAWN.Pipe()
        arguments = (theirs, readers, str(home), number, self.slot)
        self.process = _SPAWN.Process(target=worker.serve, args=arguments, daemon=True)
        with _environment():
            self.process.start()
        theirs.close()
        self.ready = False
        self.job: Job | None

    def give(self, job: Job) -> None:
        """Sends a job."""
        self.job = job
        self.slot[worker.INDEX], self.slot[worker.BEGAN] = -1, time.monotonic()
        self.connection.send(job)

    def hangs(self) -> str | None:
        """Why its present input counts as a hang; None while it does not."""
        if self.job is None or self.slot[worker.INDEX] < 0:
            return None
        if time.monotonic() - self.slot[worker.BEGAN] > LONGEST_WALL:
            return f"no result after {LONGEST_WALL} s"
        try:
            used = psutil.Process(self.process.pid).cpu_times()
        except psutil.Error:
            return None
        if used.user + used.system - self.slot[worker.CPU] > LONGEST_CPU:
            return f"no result after {LONGEST_CPU} s of processor time"
        return None

    def last_words(self) -> str:
        """The end of what it wrote on standard error."""
        return self.log.read_bytes()[-4000:].decode(errors="replace") if self.log.exists() else ""


def exit_name(code: int | None) -> str:
    """A signal's name, or the exit status."""
    if code is not None and code < 0:
        return signal.Signals(-code).name
    return f"exit {code}"


@contextmanager
def _environment() -> Generator[None]:
    """Variables that a process reads when it starts."""
    before = {name: os.environ.get(name) for name in _ENVIRONMENT}
    os.environ.update(_ENVIRONMENT)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
