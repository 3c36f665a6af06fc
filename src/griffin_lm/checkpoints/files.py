"""JSON that may be anything, and folders that appear whole or not at all."""

import json
import math
import os
import secrets
import shutil
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from ..errors import CheckpointCorrupt, CheckpointError, CheckpointNotFound
from ..shapes import JSON

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
_LARGEST_JSON = 64 * 2**20  # bytes; the largest index in use has well under one MiB


def read_json(path: Path) -> JSON:
    """A JSON object from a file of unknown origin.

    Raises CheckpointNotFound, CheckpointError where it cannot be opened, CheckpointCorrupt where it
    is no JSON object, repeats a name, or holds a number that is not finite.
    """
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise CheckpointCorrupt(f"{path} is not a file; fetch the checkpoint again")
        if size > _LARGEST_JSON:
            raise CheckpointCorrupt(f"{path} has {size} bytes, too many for what it should hold")
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise CheckpointNotFound(f"there is no {path}") from error
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
    return parse_json(data, path)


def parse_json(data: bytes, where: Path, what: str = "it") -> JSON:
    """As read_json, from bytes; `where` and `what` stand in the message."""
    try:
        value: Any = json.loads(
            data, object_pairs_hook=_object, parse_constant=_refuse, parse_float=_finite
        )
    except (ValueError, RecursionError) as error:
        raise CheckpointCorrupt(
            f"{where}: {what} is not readable JSON ({str(error)[:120]}); fetch or save it again"
        ) from error
    if not isinstance(value, dict):
        raise CheckpointCorrupt(f"{where}: {what} is no JSON object; fetch or save it again")
    return value


def _object(pairs: list[tuple[str, Any]]) -> JSON:
    """A dict, unless a name stands twice: then two readers could see two different files."""
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("a name stands twice")
    return made


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number")


def _finite(text: str) -> float:
    if not math.isfinite(float(text)):
        raise ValueError(f"{text[:40]} is not finite")
    return float(text)


def write_json(path: Path, value: JSON) -> None:
    """Indented, names in the given order, a newline at the end."""
    path.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")


@contextmanager
def appearing(
    folder: Path, obsolete: Callable[[str, set[str]], bool], vital: tuple[str, ...] = (CONFIG,)
) -> Generator[Path]:
    """A folder to write into, whose files then stand in `folder`, all of them or none.

    A new folder gets its name by one rename. In a folder that exists, files of the same names are
    replaced and those that are `obsolete(name, new names)` removed, other files stay; what is
    `vital`, config.json last, goes first and comes last, so that a process killed in between leaves
    no mixture that loads. Whatever fails while writing leaves everything as it was and raises
    CheckpointError.
    """
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"cannot save to {folder}: a file has that name; choose another")
    exists = folder.exists()
    aside = (folder if exists else folder.parent) / f".{folder.name}.{secrets.token_hex(4)}"
    try:
        aside.mkdir(parents=True)
        yield aside
        for path in [*aside.rglob("*"), aside]:
            _sync(path)
        if exists:
            _move_in(aside, folder, obsolete, vital)
        else:
            aside.rename(folder)
            _sync(folder.parent)
    except OSError as error:
        raise CheckpointError(
            f"could not save to {folder}: {error.strerror or error}; what stood there is "
            "untouched; make room or choose another place, and save again"
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _move_in(
    aside: Path,
    folder: Path,
    obsolete: Callable[[str, set[str]], bool],
    vital: tuple[str, ...],
) -> None:
    new = {path.name for path in aside.iterdir()}
    (aside / "old").mkdir()
    for name in reversed(vital):
        _away(folder / name, aside)
    for path in list(folder.iterdir()):
        if path != aside and obsolete(path.name, new):
            _away(path, aside)
    for name in sorted(new, key=lambda name: vital.index(name) + 1 if name in vital else 0):
        if (folder / name).is_dir():
            _away(folder / name, aside)
        os.replace(aside / name, folder / name)
    _sync(folder)


def _away(path: Path, aside: Path) -> None:
    """One rename, for a folder too; what is aside is removed at the end."""
    if path.exists() or path.is_symlink():
        os.replace(path, aside / "old" / path.name)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
