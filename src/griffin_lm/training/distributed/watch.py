"""Signs of life: how processes notice that one of them has stopped, and which.

Each writes a count to the store that they met at, once a second, and reads its neighbour's. Who
stops by an error leaves its words there first. A process whose collective call fails looks there
for the one to blame; one whose call hangs (NCCL does not notice a peer's death) is ended.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import torch.distributed as dist

from ...errors import GriffinError, TrainingError

BEAT = 1.0  # seconds
SILENT = 5  # beats without a sign from one whose connection broke
HUNG = 30  # beats without a sign from one whose connection stands
GRACE = 15  # beats that the main thread has to end by itself, once somebody is gone
LINGER = 5  # beats that one who stops by an error waits at most for the others to hear why
_GONE = "gone"
_BROKEN = ("gloo", "nccl", "Connection closed", "Connection reset", "Broken pipe", "Socket")


class Watch:
    """While entered, watches over the other processes; leaving with an error tells them.

    An error that only says that a connection broke becomes a TrainingError naming who broke it.
    store: a connection of its own to one that all reach; None: nobody is watched.
    """

    def __init__(self, rank: int, size: int, store: Any) -> None:
        self.rank, self.size = rank, size
        self._store: Any = store if size > 1 else None
        self._left = threading.Event()
        self._found: tuple[int, str] | None = None  # who is gone, and why, once it is heard
        self._before: Any = None  # what SIGTERM did until here
        self._thread = threading.Thread(target=self._run, name="griffin-watch", daemon=True)

    def __enter__(self) -> "Watch":
        if self._store is not None:
            self._store.set(_alive(self.rank), "0")
            self._thread.start()
            if threading.current_thread() is threading.main_thread():
                self._before = signal.getsignal(signal.SIGTERM) or signal.SIG_DFL
                signal.signal(signal.SIGTERM, self._on_terminate)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        try:
            if error is not None and self._store is not None:
                self._explain(error)
        finally:
            self._left.set()
            # where somebody is gone it stays: this process has yet to print who
            mine = signal.getsignal(signal.SIGTERM) == self._on_terminate
            if mine and self._before is not None and self._found is None:
                signal.signal(signal.SIGTERM, self._before)

    def _on_terminate(self, number: int, frame: Any) -> None:
        """As before, but once it is heard who is gone this process goes on until it has said so."""
        if self._found is not None:
            return
        signal.signal(number, self._before)
        signal.raise_signal(number)

    def _explain(self, error: BaseException) -> None:
        """Leaves this process's words, or raises a TrainingError with another's."""
        if not _is_broken_connection(error):
            what = str(error) if isinstance(error, GriffinError) else _described(error)
            self._tell(self.rank, f"stopped: {what}")
            self._linger()
            return
        with _untroubled():
            found = self._blame()
        self._found = self._found or found
        if found is not None:
            raise TrainingError(_sentence(*found)) from error

    def _blame(self) -> tuple[int, str] | None:
        """Who is gone, and why, as soon as it is clear; None if all are alive."""
        seen, still = [-1] * self.size, [0] * self.size
        for _ in range(GRACE):
            try:
                if found := self._told():
                    return found
                for rank in range(self.size):
                    count = int(self._store.get(_alive(rank)))
                    still[rank] = still[rank] + 1 if count == seen[rank] else 0
                    seen[rank] = count
                    if still[rank] >= SILENT and rank != self.rank:
                        return self._tell(rank, f"died: no sign of life for {SILENT * BEAT:.0f} s")
            except RuntimeError:  # the store went with the process, or the launcher, that kept it
                return 0, "died, or the launcher did: the store they met at is gone"
            time.sleep(BEAT)
        return None

    def _tell(self, rank: int, words: str) -> tuple[int, str]:
        """The first to be told of stays; what it is."""
        try:
            self._store.compare_set(_GONE, "", f"{rank} {words}")
            return self._told() or (rank, words)
        except RuntimeError:  # nobody can be told any more
            return rank, words

    def _linger(self) -> None:
        """Waits until all know: with this process gone, torchrun ends them before they can ask."""
        try:
            self._store.set(_heard(self.rank), "")
            everyone = [_heard(rank) for rank in range(self.size)]
            for _ in range(int(LINGER * BEAT / 0.05)):
                if self._store.check(everyone):
                    return
                time.sleep(0.05)
        except RuntimeError:  # the store is gone, and with it whoever could hear
            return

    def _told(self) -> tuple[int, str] | None:
        if not self._store.check([_GONE]):
            return None
        rank, _, words = self._store.get(_GONE).decode(errors="replace").partition(" ")
        return int(rank), words

    # ---- the thread

    def _run(self) -> None:
        count, seen, still, lost, late = 0, -1, 0, 0, 0
        neighbour, found = (self.rank + 1) % self.size, None
        while not self._left.wait(BEAT):
            count += 1
            try:
                self._store.set(_alive(self.rank), str(count))
                now = int(self._store.get(_alive(neighbour)))
                still, seen, lost = (still + 1 if now == seen else 0), now, 0
                # counted in beats of this thread, so that a machine that slept blames nobody
                if still >= HUNG:
                    self._tell(neighbour, f"died: no sign of life for {HUNG * BEAT:.0f} s")
                found = self._told()
                if self._found is None and found is not None:
                    self._found = found
                    self._store.set(_heard(self.rank), "")
            except RuntimeError:
                lost += 1
                found = (0, "died, or the launcher did: the store they met at is gone")
            late = late + 1 if found is not None and (lost == 0 or lost >= SILENT) else 0
            if found is not None and late >= GRACE:
                print(f"griffin: {_sentence(*found)}", file=sys.stderr, flush=True)
                os._exit(1)  # the main thread hangs in a call that no exception reaches


@contextmanager
def _untroubled() -> Generator[None]:
    """SIGTERM waits: torchrun sends it to those that are left, which are to say who is not."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGTERM, before)


def _alive(rank: int) -> str:
    return f"alive/{rank}"


def _heard(rank: int) -> str:
    return f"heard/{rank}"


def _is_broken_connection(error: BaseException) -> bool:
    if isinstance(error, GriffinError) or not isinstance(error, RuntimeError):
        return False
    words = str(error)
    return isinstance(error, dist.DistError) or any(word in words for word in _BROKEN)


def _described(error: BaseException) -> str:
    first = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def _sentence(rank: int, words: str) -> str:
    return (
        f"process {rank} {words}. The newest checkpoint is as it was; once the reason is gone, the "
        "same command with --resume auto goes on"
    )
