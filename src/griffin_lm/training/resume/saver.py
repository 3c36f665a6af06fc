"""Saves while training goes on: a copy is taken, a thread writes it; and what loads it again."""

import sys
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from . import content, protocol, shards
from .manifest import verify
from .together import Together


class Saver:
    """Writes the checkpoints of one run; the only one that does in `out`.

    keep: how many stay. background: write in a thread, of a copy. An error is raised by the next
    save(), check() or wait(); a process that ends without one of these prints it. Leaving a `with`
    waits. together: the processes that save one run; all of them call save() and wait() at the
    same steps, and all raise or none does.
    """

    def __init__(
        self, out: Path, keep: int, background: bool = True, together: Together | None = None
    ) -> None:
        self.out, self.keep, self.background, self.together = out, keep, background, together
        self._thread: threading.Thread | None = None
        self._failed: list[BaseException] = []
        weakref.finalize(self, _report, self._failed)
        if together is None or together.rank == 0:
            with suppress(OSError):  # tried again before something is written
                protocol.clean(out)

    @property
    def failed(self) -> bool:
        """Whether the latest save has failed already."""
        return bool(self._failed)

    def save(self, step: int, value: dict[str, Any]) -> None:
        """Saves what `Trainer.to_dict` gave as the checkpoint of that step.

        Whatever changes afterwards does not change what is stored. Waits for the save before it.
        Raises TrainingError for a disk that refused this one (in the background: the one before),
        and for values that cannot be stored.
        """
        self.wait()
        copy = content.plain(value, copy=self.background)
        if not self.background:
            self._commit(step, copy)
            return
        # no daemon: Python waits for it before it ends
        self._thread = threading.Thread(target=self._write, args=(step, copy), name="griffin-save")
        with _LOCK:
            _BUSY.add(self)
        self._thread.start()

    def wait(self) -> None:
        """Returns when the latest save is durable; raises its error."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        with _LOCK:
            _BUSY.discard(self)
        self._raise()

    def check(self) -> None:
        """Raises the latest save's error if it has failed already; does not wait."""
        if self._thread is None or not self._thread.is_alive():
            self.wait()

    def __enter__(self) -> "Saver":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if error is None:
            self.wait()
        elif self._thread is not None:  # that error goes first; ours is printed at the end
            self._thread.join()

    def _commit(self, step: int, copy: dict[str, Any]) -> None:
        if self.together is None:
            protocol.commit(self.out, step, lambda at: content.write(copy, at), self.keep)
        else:
            self.together.commit(self.out, step, copy, self.keep)

    def _write(self, step: int, copy: dict[str, Any]) -> None:
        try:
            self._commit(step, copy)
        except BaseException as error:  # handed to whoever calls next
            self._failed.append(error)

    def _raise(self) -> None:
        if self._failed:
            raise self._failed.pop()


def newest(out: Path, say: Callable[[str], None] = print) -> Path | None:
    """As protocol.newest, once this process's saves to `out` are done."""
    _settle(out)
    return protocol.newest(out, say)


def load(path: Path) -> dict[str, Any]:
    """The content of a checkpoint `out`/step-N, verified, of however many processes it is.

    Raises CheckpointError subclasses, and TrainingError where one process can't go on with it.
    """
    _settle(path.parent)
    verify(path)
    return shards.read(path) if shards.are_in(path) else content.read(path)


_BUSY: weakref.WeakSet[Saver] = weakref.WeakSet()
_LOCK = threading.Lock()


def _settle(out: Path) -> None:
    """Waits for the savers of a folder."""
    with _LOCK:
        busy = [saver for saver in _BUSY if saver.out.resolve() == out.resolve()]
    for saver in busy:
        saver.wait()


def _report(failed: list[BaseException]) -> None:
    for error in failed:
        print(f"griffin: {error}", file=sys.stderr, flush=True)
