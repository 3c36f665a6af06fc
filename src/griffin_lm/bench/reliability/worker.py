"""The process that reads damaged files: memory limited, figures shared, one message per failure.

Whatever happens to it (a crash in native code, a hang), the process that started it knows from the
shared slot which input it was at.
"""

import faulthandler
import gc
import os
import re
import resource
import shutil
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from ...errors import GriffinError
from .reader import Files, Input, Reader, make_input, read_files

# what a worker shares; every entry is a float
INDEX, BEGAN, CPU, REFUSED, LOADED, SAME, SLOWEST, SLOWEST_AT, SHARE, SHARE_AT, PEAK = range(11)
SLOTS = 11

LONGEST_MESSAGE = 4000  # characters of an error
_REFUSED_MEMORY = re.compile("bad_alloc|allocate|RESOURCE_EXHAUSTED|[Oo]ut of memory")
_USE_BOUND = 512 << 20  # while a result is tried out: a model may ask for more than its file


@dataclass
class Failure:
    """What went wrong with an input: a word for the kind, and details."""

    kind: str
    details: str


@dataclass
class Outcome:
    """Of one input: "refused", "loaded", or a failure; its cost."""

    result: str = "refused"
    same: bool = False
    failure: Failure | None = None
    seconds: float = 0.0
    peak: int = 0
    bound: int = 1


@dataclass
class Bench:
    """A reader made ready in this process: its good files, what they give, a folder to work in."""

    reader: Reader
    good: dict[str, Files]
    folder: Path
    results: dict[str, str] = field(default_factory=dict[str, str])
    laid: str = ""  # the variant whose files lie in the folder
    touched: tuple[str, ...] = ()  # files there that are not the variant's

    def lay(self, variant: str, files: Mapping[str, bytes]) -> int:
        """Makes the folder hold these files; returns their bytes.

        Every file written is a new one: a map of an old file stays what it was.
        """
        if self.laid != variant:
            shutil.rmtree(self.folder, ignore_errors=True)
            self._write(self.good[variant], list(self.good[variant]))
            self.laid, self.touched = variant, ()
        self._write(self.good[variant], self.touched)
        good = self.good[variant]
        self.touched = tuple(n for n in {*good, *files} if good.get(n) != files.get(n))
        self._write(files, self.touched)
        return sum(map(len, files.values()))

    def _write(self, files: Mapping[str, bytes], names: Any) -> None:
        for name in names:
            path = self.folder / name
            path.unlink(missing_ok=True)
            if name in files:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(files[name])


def prepare(reader: Reader, seeds: Path, work: Path) -> Bench:
    """Reads every good variant twice, so that what is loaded once is loaded before measuring."""
    good = {folder.name: read_files(folder) for folder in sorted((seeds / reader.name).iterdir())}
    bench = Bench(reader, good, work / reader.name)
    for variant, files in good.items():
        bench.lay(variant, files)
        for _ in range(2):
            result = reader.read(bench.folder)
            bench.results[variant] = reader.describe(result)
            reader.use(result)
    return bench


def try_input(bench: Bench, given: Input) -> Outcome:
    """Reads one input under its memory limit, and looks at what comes out."""
    reader, outcome = bench.reader, Outcome()
    outcome.bound = reader.bound(bench.lay(given.variant, given.files))
    result: Any = None
    began, before = time.process_time(), _start_measuring()
    try:
        _limit_memory(outcome.bound)
        try:
            result = reader.read(bench.folder)
        finally:
            outcome.peak = _peak() - before
            outcome.seconds = time.process_time() - began
            _limit_memory(None)
    except GriffinError as error:
        if str(bench.folder) not in str(error) or len(str(error)) > LONGEST_MESSAGE:
            outcome.failure = Failure("the message names no file, or is endless", str(error)[:9999])
        if _out_of_memory(error):
            outcome.failure = Failure("memory: taken for damage", traceback.format_exc()[-9999:])
        return outcome
    except BaseException as error:  # native panics are no Exception
        kind = "memory" if isinstance(error, MemoryError) else "another error"
        outcome.failure = Failure(f"{kind}: {type(error).__name__}", traceback.format_exc()[-9999:])
        return outcome
    outcome.result = "loaded"
    try:
        _limit_memory(_USE_BOUND)
        try:
            found = reader.describe(result)
            outcome.same = found == bench.results[given.variant]
            if reader.exact and not given.repaired and found not in bench.results.values():
                outcome.failure = Failure("damage went unnoticed", found)
            reader.use(result)
        finally:
            _limit_memory(None)
    except GriffinError:
        pass  # refused when used, with a reason
    except BaseException as error:
        outcome.failure = Failure(f"half-built: {type(error).__name__}", traceback.format_exc())
    return outcome


def _out_of_memory(error: BaseException | None) -> bool:
    """Whether an error goes back to memory that the system refused, in Python's words or others."""
    while error is not None:
        if isinstance(error, MemoryError) or _REFUSED_MEMORY.search(str(error)[:2000]):
            return True
        error = error.__cause__ or error.__context__
    return False


def serve(
    connection: Connection, readers: dict[str, Reader], home: str, number: int, slot: Any
) -> None:
    """Works off (reader, seed, first, beyond the last) until None comes.

    home: holds seeds/READER/VARIANT; worker-NUMBER.log and worker-NUMBER/ are written there. Sends
    ("failure", index, kind, details) and, after each batch, ("done",).
    """
    work = Path(home) / f"worker-{number}"
    log = f"{work}.log"
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    faulthandler.enable(handle)
    torch.set_num_threads(1)
    benches: dict[str, Bench] = {}
    connection.send(("ready",))
    while (job := connection.recv()) is not None:
        name, seed, first, beyond = job
        if name not in benches:
            benches[name] = prepare(readers[name], Path(home) / "seeds", work)
            gc.collect()
            gc.freeze()
        os.truncate(log, 0)
        bench = benches[name]
        if isinstance(seed, str):  # a folder to try again
            variant, repaired = beyond
            inputs = ((first, Input(variant, read_files(Path(seed)), repaired)),)
        else:
            inputs = (
                (index, make_input(bench.reader, bench.good, seed, index))
                for index in range(first, beyond)
            )
        for index, given in inputs:
            slot[BEGAN], slot[CPU] = time.monotonic(), time.process_time()
            slot[INDEX] = index
            outcome = try_input(bench, given)
            _record(slot, index, outcome)
            if outcome.failure is not None:
                failure = outcome.failure
                connection.send(("failure", index, failure.kind, failure.details))
        slot[INDEX] = -1
        connection.send(("done",))


def _record(slot: Any, index: int, outcome: Outcome) -> None:
    slot[REFUSED] += outcome.failure is None and outcome.result == "refused"
    slot[LOADED] += outcome.failure is None and outcome.result == "loaded"
    slot[SAME] += outcome.failure is None and outcome.same
    if outcome.seconds > slot[SLOWEST]:
        slot[SLOWEST], slot[SLOWEST_AT] = outcome.seconds, index
    if outcome.peak / outcome.bound > slot[SHARE]:
        slot[SHARE], slot[SHARE_AT] = outcome.peak / outcome.bound, index
        slot[PEAK] = outcome.peak


def _limit_memory(more: int | None) -> None:
    """Lets the process's data (heap, anonymous and private maps) grow by `more` bytes, no more."""
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    soft = resource.RLIM_INFINITY
    if more is not None:
        with open("/proc/self/statm", "rb") as file:
            soft = int(file.read().split()[5]) * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _start_measuring() -> int:
    """Sets the highest resident memory back to the present one, and returns it, in bytes."""
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    return _peak()


def _peak() -> int:
    with open("/proc/self/status", "rb") as file:
        text = file.read()
    at = text.index(b"VmHWM:") + 6
    return int(text[at : text.index(b"kB", at)]) * 1024
