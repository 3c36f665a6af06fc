"""Every change that saving a run makes to the disk, so that tests can let each of them fail."""

import os
from collections.abc import Callable
from pathlib import Path


class Disk:
    """The real one. All methods raise OSError."""

    def mkdir(self, path: Path) -> None:
        """A folder, with its parents; one that exists is left alone."""
        path.mkdir(parents=True, exist_ok=True)

    def write(self, path: Path, fill: Callable[[Path], object]) -> None:
        """A new file of which `fill` writes every byte."""
        fill(path)

    def fsync(self, path: Path) -> None:
        """Returns when a file's bytes, or a folder's names, would survive a power cut."""
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, old: Path, new: Path) -> None:
        """A file takes the place of the one called `new`, a folder a name that is free."""
        os.replace(old, new)

    def unlink(self, path: Path) -> None:
        """Removes a file."""
        path.unlink()

    def rmdir(self, path: Path) -> None:
        """Removes an empty folder."""
        path.rmdir()

    def remove(self, folder: Path) -> None:
        """Removes a folder and all in it, one operation after the other."""
        for path in sorted(folder.iterdir()):
            if path.is_dir() and not path.is_symlink():
                self.remove(path)
            else:
                self.unlink(path)
        self.rmdir(folder)


DISK = Disk()
