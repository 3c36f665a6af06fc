"""Disks that fail or die at the N-th operation, and that forget what was not flushed to them."""

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from griffin_lm.training.resume.disk import Disk


class Death(BaseException):
    """The process ends here; nothing after it runs."""


class HastyDisk(Disk):
    """Flushes nothing: for what a test only needs to be there."""

    def fsync(self, path: Path) -> None:
        assert path.exists()


class FailingDisk(Disk):
    """Raises `error` at operation `at` (from 1), and at all after it unless `once`."""

    def __init__(self, at: int, error: OSError, once: bool) -> None:
        self.at, self.error, self.once, self.count = at, error, once, 0

    def _tick(self) -> None:
        self.count += 1
        if self.count == self.at or (self.count > self.at and not self.once):
            raise self.error

    def mkdir(self, path: Path) -> None:
        self._tick()
        super().mkdir(path)

    def write(self, path: Path, fill: Callable[[Path], object]) -> None:
        try:
            self._tick()
        except OSError:
            path.write_bytes(b"half")  # a full disk takes the beginning
            raise
        super().write(path, fill)

    def fsync(self, path: Path) -> None:
        self._tick()

    def rename(self, old: Path, new: Path) -> None:
        self._tick()
        super().rename(old, new)

    def unlink(self, path: Path) -> None:
        self._tick()
        super().unlink(path)

    def rmdir(self, path: Path) -> None:
        self._tick()
        super().rmdir(path)


@dataclass
class File:
    live: bytes
    durable: bytes | None = None


@dataclass
class Folder:
    live: dict[str, "File | Folder"] = field(default_factory=dict)
    durable: dict[str, "File | Folder"] = field(default_factory=dict)


def everything(folder: Path) -> Folder:
    """A folder whose content was flushed long ago."""
    made = Folder()
    for path in folder.iterdir():
        node = everything(path) if path.is_dir() else File(path.read_bytes(), path.read_bytes())
        made.live[path.name] = node
    made.durable = dict(made.live)
    return made


class MortalDisk(Disk):
    """Dies at operation `at` (from 1), a write in its middle; knows what was flushed by then."""

    def __init__(self, root: Path, at: int) -> None:
        self.root, self.at, self.count, self.tree = root, at, 0, everything(root)

    @property
    def died(self) -> bool:
        return self.count >= self.at

    def _tick(self) -> None:
        self.count += 1
        if self.died:
            raise Death

    def _folder(self, path: Path) -> Folder:
        node: File | Folder = self.tree
        for name in path.relative_to(self.root).parts:
            assert isinstance(node, Folder)
            node = node.live.setdefault(name, Folder())
        assert isinstance(node, Folder)
        return node

    def mkdir(self, path: Path) -> None:
        self._tick()
        super().mkdir(path)
        self._folder(path)

    def write(self, path: Path, fill: Callable[[Path], object]) -> None:
        if self.died:  # before, and somebody went on
            raise Death
        super().write(path, fill)
        node = self._folder(path.parent).live[path.name] = File(path.read_bytes())
        try:
            self._tick()
        except Death:
            node.live = node.live[: len(node.live) // 2]
            path.write_bytes(node.live)
            raise

    def fsync(self, path: Path) -> None:
        self._tick()
        if path.is_dir():
            folder = self._folder(path)
            folder.durable = dict(folder.live)
        else:
            node = self._folder(path.parent).live[path.name]
            assert isinstance(node, File)
            node.durable = node.live

    def rename(self, old: Path, new: Path) -> None:
        self._tick()
        super().rename(old, new)
        self._folder(new.parent).live[new.name] = self._folder(old.parent).live.pop(old.name)

    def unlink(self, path: Path) -> None:
        self._tick()
        super().unlink(path)
        del self._folder(path.parent).live[path.name]

    def rmdir(self, path: Path) -> None:
        self._tick()
        super().rmdir(path)
        del self._folder(path.parent).live[path.name]

    def cut_power(self, kept: Callable[[], bool]) -> None:
        """What was not flushed is on the disk only where `kept()` says so."""
        shutil.rmtree(self.root)
        self._rebuild(self.tree, self.root, kept)

    def _rebuild(self, folder: Folder, path: Path, kept: Callable[[], bool]) -> None:
        path.mkdir()
        for name, node in (folder.live if kept() else folder.durable).items():
            if isinstance(node, Folder):
                self._rebuild(node, path / name, kept)
            elif kept():
                (path / name).write_bytes(node.live)
            else:  # of a file that was never flushed a part may be there
                half = node.live[: len(node.live) // 2]
                (path / name).write_bytes(half if node.durable is None else node.durable)


def nothing_kept() -> bool:
    """The worst disk."""
    return False


def sometimes_kept(seed: int) -> Callable[[], bool]:
    """A disk that had written some of it."""
    draw = random.Random(seed)
    return lambda: draw.random() < 0.5
