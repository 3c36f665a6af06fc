"""Damaged files by the hundred thousand: handed out to workers, counted, failures kept.

An input is a function of (reader, seed, number). An input fails if reading it ends in anything but
a result or a GriffinError that names the file; if the process dies; if it takes more than
LONGEST_CPU seconds of processor time or LONGEST_WALL seconds; if it allocates more than
`Reader.bound`; if the result is half-built; or if a file with checksums loads as another.
"""

import json
import os
import signal
import sys
import tempfile
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from ...errors import GriffinError, InputError
from . import worker
from .crew import Job, Worker, exit_name
from .reader import Files, Reader, make_input, read_files

_BATCH = 100  # inputs
_FROM_OUTSIDE = (-signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP)  # somebody stopped it
_PATIENCE = 3  # times that an input may be stopped so before it is held to be the cause
_KEPT = 50  # failing inputs of one reader that are written out

Progress = Callable[[int, int], None]


@dataclass
class Row:
    """What the inputs of one reader came to."""

    reader: str
    bound: tuple[int, int] = (0, 0)
    """Bytes of memory whatever the files, and for each of theirs."""
    inputs: int = 0
    refused: int = 0
    loaded: int = 0
    unchanged: int = 0
    """Of the loaded: those that gave the original result."""
    slowest_seconds: float = 0.0
    slowest_input: int = -1
    memory_share: float = 0.0
    """Largest memory of an input, of its bound."""
    memory_bytes: int = 0
    memory_input: int = -1
    failures: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    def plain(self) -> dict[str, Any]:
        """A row of --json; of every failure all but the traceback."""
        facts = {k: v for k, v in vars(self).items() if k != "failures"}
        kept = [{k: v for k, v in row.items() if k != "details"} for row in self.failures]
        return {"what": "fuzz", "who": "griffin"} | facts | {"failures": kept}

    def add(self, slot: Any) -> None:
        """Takes over what a worker has counted, and sets the worker's counts back."""
        self.refused += int(slot[worker.REFUSED])
        self.loaded += int(slot[worker.LOADED])
        self.unchanged += int(slot[worker.SAME])
        if slot[worker.SLOWEST] > self.slowest_seconds:
            self.slowest_seconds = slot[worker.SLOWEST]
            self.slowest_input = int(slot[worker.SLOWEST_AT])
        if slot[worker.SHARE] > self.memory_share:
            self.memory_share, self.memory_bytes = slot[worker.SHARE], int(slot[worker.PEAK])
            self.memory_input = int(slot[worker.SHARE_AT])
        for place in range(worker.REFUSED, worker.SLOTS):
            slot[place] = 0.0


class Fuzzing:
    """A run over some readers; `rows` fill up while `run` works."""

    def __init__(
        self, readers: dict[str, Reader], seed: int, workers: int, failures: Path | None = None
    ) -> None:
        if not sys.platform.startswith("linux"):
            raise InputError("fuzzing limits and measures memory through /proc: run it on Linux")
        self.absent = {
            name: reader.package or ""
            for name, reader in readers.items()
            if reader.package is not None and find_spec(reader.package) is None
        }
        self.readers = {n: reader for n, reader in readers.items() if n not in self.absent}
        self.seed, self.count, self.failures = seed, workers, failures
        self.rows = {
            n: Row(n, (reader.fixed, reader.per_byte)) for n, reader in self.readers.items()
        }
        self._good: dict[str, dict[str, Files]] = {}
        self._stopped: Counter[tuple[str, int]] = Counter()

    def run(self, inputs: int, progress: Progress | None = None) -> list[Row]:
        """Tries this many inputs, the same number for each reader (the first may have one more)."""
        share, more = divmod(inputs, max(len(self.readers), 1))
        jobs: list[Job] = []
        for number, name in enumerate(self.readers):
            amount = share + (number < more)
            self.rows[name].inputs = amount
            jobs += [
                (name, self.seed, at, min(at + _BATCH, amount)) for at in range(0, amount, _BATCH)
            ]
        jobs.sort(key=lambda job: job[2])  # every reader from the start on
        self._work(jobs, progress or (lambda done, total: None))
        return list(self.rows.values())

    def repeat(self, folder: Path) -> list[dict[str, Any]]:
        """Tries the input in a folder that a run has kept; returns its failures."""
        try:
            facts = json.loads((folder / "failure.json").read_text(encoding="utf-8"))
            given = (facts["variant"], facts["repaired"])
            job = (facts["reader"], str(folder / "input"), int(facts["input"]), given)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{folder} is no folder of a failing input: {error}") from error
        if job[0] not in self.readers:
            raise InputError(f"{folder} is of the reader {job[0]!r}, which is not here")
        self._work([job], lambda done, total: None)
        return self.rows[job[0]].failures

    def _work(self, jobs: list[Job], progress: Progress) -> None:
        waiting, total = deque(jobs), len(jobs)
        in_memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        with tempfile.TemporaryDirectory(prefix="griffin-fuzz-", dir=in_memory) as folder:
            home = Path(folder)
            seeds = home / "seeds"
            for name in {job[0]: None for job in jobs}:
                self.readers[name].make(seeds / name)
                folders = sorted((seeds / name).iterdir())
                self._good[name] = {folder.name: read_files(folder) for folder in folders}
            crew: dict[int, Worker] = {}
            started = 0
            try:
                while waiting or any(w.job is not None for w in crew.values()):
                    while len(crew) < min(self.count, len(waiting) + len(crew)) and waiting:
                        started += 1
                        crew[started] = Worker(self.readers, home, started)
                    for number, one in list(crew.items()):
                        if not self._attend(one, waiting):
                            del crew[number]
                        elif one.ready and one.job is None and waiting:
                            one.give(waiting.popleft())
                    wait([w.connection for w in crew.values()], timeout=0.2)
                    done = total - len(waiting) - sum(w.job is not None for w in crew.values())
                    progress(done, total)
            finally:
                for one in crew.values():
                    one.process.kill()
                    one.process.join()

    def _attend(self, one: Worker, waiting: deque[Job]) -> bool:
        """Takes a worker's messages; False once it is gone and its job is dealt with."""
        alive = one.process.is_alive()
        try:
            while one.connection.poll():
                self._take(one, one.connection.recv())
        except EOFError:
            one.process.join(10)
            alive = False
        why = None
        if alive:
            why = one.hangs()
            if why is None:
                return True
            one.process.kill()
            one.process.join()
        self._bury(one, why, waiting)
        return False

    def _take(self, one: Worker, message: tuple[Any, ...]) -> None:
        if message[0] == "ready":
            one.ready = True
        elif message[0] == "failure" and one.job is not None:
            self._keep(one.job, *message[1:])
        elif message[0] == "done" and one.job is not None:
            self.rows[one.job[0]].add(one.slot)
            one.job = None

    def _bury(self, one: Worker, why: str | None, waiting: deque[Job]) -> None:
        """Counts the input that ended a worker, and puts the rest of its batch back."""
        index = int(one.slot[worker.INDEX])
        outside = why is None and one.process.exitcode in _FROM_OUTSIDE
        if outside and (not one.ready or one.job is None or index < 0):
            waiting.extendleft([one.job] if one.job is not None else [])
            return
        if not one.ready or one.job is None or index < 0:
            raise GriffinError(
                f"a fuzzing worker ended before it read anything (exit {one.process.exitcode}); "
                f"its last words: {one.last_words()[-1500:]}"
            )
        self.rows[one.job[0]].add(one.slot)
        name, seed, _, beyond = one.job
        self._stopped[name, index] += outside
        if outside and isinstance(seed, int) and self._stopped[name, index] < _PATIENCE:
            waiting.appendleft((name, seed, index, beyond))
            return
        kind = "hang" if why is not None else f"crash: {exit_name(one.process.exitcode)}"
        self._keep(one.job, index, kind, f"{why or ''}\n{one.last_words()}")
        if isinstance(seed, int) and index + 1 < beyond:
            waiting.appendleft((name, seed, index + 1, beyond))

    def _keep(self, job: Job, index: int, kind: str, details: str) -> None:
        """Notes a failure, and writes its input with the command that tries it again."""
        row, name = self.rows[job[0]], job[0]
        fact = {"reader": name, "seed": self.seed, "input": index, "kind": kind}
        row.failures.append(fact | {"details": details})
        if self.failures is None or len(row.failures) > _KEPT or isinstance(job[1], str):
            return
        given = make_input(self.readers[name], self._good[name], self.seed, index)
        folder = self.failures / f"{name}-{self.seed}-{index}"
        for file, data in given.files.items():
            path = folder / "input" / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        fact |= {"variant": given.variant, "repaired": given.repaired}
        fact["repeat"] = f"griffin bench reliability --repeat {folder}"
        text = json.dumps(fact | {"details": details}, indent=1)
        (folder / "failure.json").write_text(text + "\n", encoding="utf-8")
