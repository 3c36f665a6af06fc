"""Readers with a fault each, at inputs that hold a certain byte: what fuzzing must notice."""

import os
import signal
import time
from pathlib import Path
from random import Random
from typing import Any

from griffin_lm.bench.reliability.reader import Files, Reader
from griffin_lm.errors import CheckpointCorrupt

FAULTY = 7  # the byte; every other input is refused


def one_byte(folder: Path) -> None:
    """A folder with a file of one byte."""
    (folder / "only").mkdir(parents=True)
    (folder / "only" / "byte").write_bytes(b"\x00")


def another_byte(random: Random, data: bytes) -> bytes:
    """Any of ten bytes."""
    return bytes((random.randrange(10),))


def value(folder: Path) -> int:
    """The byte in the file."""
    try:
        return (folder / "byte").read_bytes()[0]
    except (FileNotFoundError, IndexError) as error:
        raise CheckpointCorrupt(f"{folder}/byte is missing or empty") from error


def crash(folder: Path) -> int:
    """The process dies, as by a fault in native code."""
    if value(folder) == FAULTY:
        os.abort()
    return refuse(folder)


def stop(folder: Path) -> int:
    """Stopped by somebody, the first time only: a file beside the folders remembers."""
    first = folder.parent.with_name("stopped-before")
    if value(folder) == FAULTY and not first.exists():
        first.write_bytes(b"")
        os.kill(os.getpid(), signal.SIGTERM)
    return refuse(folder)


def hang(folder: Path) -> int:
    """Never ends, and burns the processor."""
    while value(folder) == FAULTY:
        sum(range(10**6))
    return refuse(folder)


def grow(folder: Path) -> int:
    """Asks for memory out of proportion, and never touches it."""
    if value(folder) == FAULTY:
        return len(bytearray(2**30))
    return refuse(folder)


def swallow(folder: Path) -> int:
    """As grow, but takes what the system refuses for damage."""
    try:
        return grow(folder)
    except MemoryError as error:
        raise CheckpointCorrupt(f"{folder}/byte is damaged") from error


def escape(folder: Path) -> int:
    """Raises an error that is not ours."""
    return refuse(folder) // (value(folder) - FAULTY)


def silent(folder: Path) -> int:
    """Refuses without saying which file."""
    if value(folder) == FAULTY:
        raise CheckpointCorrupt("something is wrong somewhere")
    return refuse(folder)


def half(folder: Path) -> int:
    """Returns something that cannot be used."""
    return -1 if value(folder) == FAULTY else refuse(folder)


def unnoticed(folder: Path) -> int:
    """Loads a damaged file as if nothing were."""
    return 1 if value(folder) == FAULTY else refuse(folder)


def slow(folder: Path) -> int:
    """Takes a moment, and is otherwise right."""
    time.sleep(0.001)
    return refuse(folder)


def refuse(folder: Path) -> int:
    """0 for the good file, an error that names the folder for the others, 0 for FAULTY too."""
    if value(folder) in (0, FAULTY):
        return 0
    raise CheckpointCorrupt(f"{folder}/byte is damaged")


def use(result: Any) -> None:
    """Fails for a negative result."""
    assert result >= 0, "half-built"


def planted(name: str, exact: bool = False) -> Reader:
    """A reader by the name of its fault."""
    read = globals()[name]
    return Reader(name, one_byte, (("byte", (another_byte,)),), read, str, use, exact=exact)


def as_good(files: Files) -> bool:
    """Whether the input holds the byte at which the fault is."""
    return files.get("byte", b"")[:1] == bytes((FAULTY,))
