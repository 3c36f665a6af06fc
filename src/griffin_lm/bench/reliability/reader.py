"""What is fuzzed: a reader, good files for it, the ways to damage them, what must hold after."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from .damage import Damage, damage_bytes

Files = dict[str, bytes]
"""Name in the folder ("sub/name" below it) -> content."""


_LARGEST = 1 << 20  # bytes of a damaged file; longer ones only take time


@dataclass(frozen=True)
class Reader:
    """A way into the package for files of unknown origin.

    name      the row of the table, and what --what takes
    make      writes good files: a folder per variant, below the folder given
    damage    (pattern of names, ways to damage such a file); other files are never touched
    read      reads a folder; a GriffinError that names the folder, or a result
    describe  equal texts for equal results
    use       works with a result; raises where it is half-built
    repair    computes checksums anew after damage, so that what lies behind them is reached
    exact     what still loads without repair must be the original result
    package   one that it needs beside the plain install; without it the reader is left out
    fixed     bytes of memory that it may use whatever the files
    per_byte  and these for every byte of the files in the folder
    """

    name: str
    make: Callable[[Path], None]
    damage: tuple[tuple[str, tuple[Damage, ...]], ...]
    read: Callable[[Path], Any]
    describe: Callable[[Any], str]
    use: Callable[[Any], None]
    repair: Callable[[Files], Files] | None = None
    exact: bool = False
    package: str | None = None
    fixed: int = 16 << 20
    per_byte: int = 128

    def bound(self, size: int) -> int:
        """Bytes that reading a folder of `size` bytes may take."""
        return self.fixed + self.per_byte * size


@dataclass(frozen=True)
class Input:
    """A damaged folder: the variant it was, all its files, whether checksums were computed anew."""

    variant: str
    files: Files
    repaired: bool


def read_files(folder: Path) -> Files:
    """All files below a folder."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def make_input(reader: Reader, good: Mapping[str, Files], seed: int, index: int) -> Input:
    """The input of a number: the same for the same reader, good files, seed and number."""
    random = Random(f"{seed}/{reader.name}/{index}")
    variant = random.choice(sorted(good))
    files = dict(good[variant])
    ways = {
        name: ways
        for pattern, ways in reversed(reader.damage)
        for name in sorted(files)
        if Path(name).match(pattern)
    }
    targets = sorted(ways)
    for name in random.sample(targets, min(len(targets), random.choice((1, 1, 1, 1, 2)))):
        fate = random.random()
        if fate < 0.01:
            del files[name]
        elif fate < 0.02:  # another file in its place
            files[name] = good[variant][random.choice(sorted(good[variant]))]
        elif fate < 0.03 and name in (other := good[random.choice(sorted(good))]):
            files[name] = other[name]
        else:
            way = random.choice(ways[name])
            files[name] = way(random, files[name])
            if random.random() < 0.1:
                files[name] = damage_bytes(random, files[name])
            files[name] = files[name][:_LARGEST]
    repaired = reader.repair is not None and random.random() < 0.5
    if reader.repair is not None and repaired:
        files = reader.repair(files)
    return Input(variant, files, repaired)
