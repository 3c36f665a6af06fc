"""Folders of state files: a head, and marks of earlier heads; one writer at a time.

    DIR/OWNER/sessions/NAME/head.safetensors        the state as it is
    DIR/OWNER/sessions/NAME/mark-000000001234.safetensors   as it was at 1234 tokens
    DIR/OWNER/sessions/NAME/lock                    held by the process that changes it

A file once written is never changed: a new head is written aside, synced and renamed over the old
one, and a mark is a hard link to what the head was. So a mark, a fork or a return to a mark copies
nothing, the file system counts who still needs what, and a process that is killed at any moment
leaves the old head or the new one. OWNER is a hash: no key ever stands on the disk.
"""

import fcntl
import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from ...errors import InputError, SessionError, SessionMissing, StateError
from ...models import State

Kind = Literal["sessions", "responses"]
HEAD = "head.safetensors"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_MARK = re.compile(r"mark-(\d{12,})\.safetensors")
_PATIENCE = 10.0  # seconds that a change waits for another to end


class Store:
    """All sessions of one kind in a directory, which other processes may use too."""

    def __init__(self, folder: Path, kind: Kind = "sessions") -> None:
        self.folder, self.kind = folder, kind
        folder.mkdir(parents=True, exist_ok=True)

    def home(self, owner: str) -> Path:
        """The folder of an owner's sessions."""
        digest = hashlib.sha256(b"griffin-lm owner\n" + owner.encode()).hexdigest()
        return self.folder / digest[:32] / self.kind

    def place(self, owner: str, name: str) -> Path:
        """A session's folder, there or not. Raises `InputError` for what is no name."""
        if not _NAME.fullmatch(name):
            raise InputError(
                f"{name!r:.80} is no name of a session; take 1 to 64 letters, digits, - and _, "
                "beginning with a letter or digit"
            )
        return self.home(owner) / name

    def names(self, owner: str) -> list[str]:
        """The owner's sessions, sorted."""
        home = self.home(owner)
        if not home.is_dir():
            return []
        return sorted(each.name for each in home.iterdir() if (each / HEAD).is_file())

    def head(self, owner: str, name: str) -> Path:
        """The file of a session's state. Raises `SessionMissing` where there is none."""
        head = self.place(owner, name) / HEAD
        if not head.is_file():
            raise SessionMissing(f"there is no {self.kind[:-1]} {name!r:.80}")
        return head

    def marks(self, owner: str, name: str) -> dict[int, Path]:
        """The marks of a session: files by the tokens read, ascending."""
        place = self.place(owner, name)
        found = {
            int(match[1]): place / each
            for each in (os.listdir(place) if place.is_dir() else ())
            if (match := _MARK.fullmatch(each))
        }
        return dict(sorted(found.items()))

    @contextmanager
    def lease(self, owner: str, name: str, *, new: bool = False) -> Generator[Path]:
        """Within, no other process or thread changes this session; gives its folder.

        new: it must not be there yet. The kernel takes the lease back from a process that dies.
        Raises `SessionMissing` where there is none, `SessionError` where it is there or in use.
        """
        place = self.place(owner, name)
        if not new:
            self.head(owner, name)
        place.mkdir(parents=True, exist_ok=True)
        handle = _locked(place / "lock")
        try:
            there = (place / HEAD).is_file()
            if new and there:
                raise SessionError(f"there is a {self.kind[:-1]} {name!r} already")
            if not new and not there:
                raise SessionMissing(f"there is no {self.kind[:-1]} {name!r}")
            _sweep(place)
            yield place
        finally:
            if not (place / HEAD).is_file():  # deleted, or never made
                shutil.rmtree(place, ignore_errors=True)
            os.close(handle)

    # ---- within a lease

    def write(self, place: Path, state: State, note: dict[str, object]) -> None:
        """Makes a state the head. Raises `StateError` where the disk refuses."""
        state.save(place / HEAD, note=note)

    def mark(self, place: Path, tokens: int, keep: int) -> None:
        """Keeps the head as a mark, and of all marks the newest `keep`."""
        if keep:
            link(place / HEAD, place / f"mark-{tokens:012d}.safetensors")
        every = sorted(each for each in os.listdir(place) if _MARK.fullmatch(each))
        for old in every[: max(0, len(every) - keep)]:
            (place / old).unlink(missing_ok=True)


def link(source: Path, target: Path) -> None:
    """The same file under another name, in place of what had it; a copy where links can't be."""
    aside = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        try:
            os.link(source, aside)
        except FileNotFoundError:
            raise
        except OSError:  # a file system without links, or another one
            shutil.copyfile(source, aside)
        os.replace(aside, target)
        # renaming one link over another of the same file does nothing, and leaves both
        aside.unlink(missing_ok=True)
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise StateError(f"could not write {target}: {error.strerror}") from error


def _sweep(place: Path) -> None:
    """Removes what a process that was killed has left half-written; only within a lease."""
    for each in os.listdir(place):
        if each.startswith("."):
            (place / each).unlink(missing_ok=True)


def _locked(path: Path) -> int:
    """An open file that is locked; the lock goes with it. Another's deletion is noticed."""
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(handle).st_ino == os.stat(path).st_ino:
                return handle
        except (BlockingIOError, FileNotFoundError):
            pass
        os.close(handle)
        if time.monotonic() > until:
            raise SessionError(
                f"the session {path.parent.name!r} is being changed by someone else; try again"
            )
        time.sleep(0.005)
