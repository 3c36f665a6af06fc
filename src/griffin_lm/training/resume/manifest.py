"""The list of a checkpoint's files, written last: a folder without it, or unlike it, is none."""

import hashlib
import json
from pathlib import Path, PurePosixPath
from typing import Any

from ... import __version__
from ...checkpoints.files import parse_json
from ...errors import CheckpointCorrupt, CheckpointError
from ...shapes import JSON

MANIFEST = "manifest.json"
FORMAT = "griffin-lm training"
VERSION = 1
_AGAIN = "remove the folder; --resume auto goes on from the one before it"


def row(path: Path) -> JSON:
    """A file's line in the manifest: its size and its SHA-256. Raises OSError."""
    return {"bytes": path.stat().st_size, "sha256": _sha256(path)}


def describe(
    folder: Path, step: int, facts: JSON | None = None, known: JSON | None = None
) -> bytes:
    """The manifest of all files that stand in `folder` now. Raises OSError.

    facts: more to keep in it, such as the number of processes. known: name -> row, of files that
    whoever wrote them has hashed; they need not be seen from here yet.
    """
    rows: JSON = dict(known or {})
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if name not in rows and path.is_file():
            rows[name] = row(path)
    files = dict(sorted(rows.items()))
    made: JSON = {"format": FORMAT, "version": VERSION, "step": step, "griffin_lm": __version__}
    made |= {**(facts or {}), "files": files}
    made["checksum"] = _checksum(made)
    return json.dumps(made, indent=1).encode()  # no newline: without its last byte it is broken


def verify(folder: Path) -> JSON:
    """The manifest, once every file that it lists has its size and SHA-256.

    Raises CheckpointCorrupt naming the file and what is wrong with it; CheckpointError for a
    checkpoint of a later release, and for what may not be read. Files that it does not list are
    ignored.
    """
    path = folder / MANIFEST
    try:
        if not path.is_file():
            raise CheckpointCorrupt(f"{folder} has no {MANIFEST}, so it was not finished; {_AGAIN}")
        made = _checked(parse_json(path.read_bytes(), path), path)
        number = _number(folder.name)
        if number is not None and made.get("step") != number:
            raise CheckpointCorrupt(
                f"{path} is of step {made.get('step')}, not of {folder.name}; {_AGAIN}"
            )
        for name, row in made["files"].items():
            _check_file(folder / name, row)
    except PermissionError as error:
        raise CheckpointError(f"{error.filename} may not be read; check its permissions") from error
    except OSError as error:
        raise CheckpointCorrupt(
            f"{error.filename or folder} cannot be read ({error.strerror}); {_AGAIN}"
        ) from error
    return made


def _checked(made: JSON, path: Path) -> JSON:
    """The manifest itself, before any file is looked at."""
    version = made.get("version")
    if made.get("format") != FORMAT or type(version) is not int:
        raise CheckpointCorrupt(f"{path} is no manifest of a training run; {_AGAIN}")
    if version > VERSION:
        raise CheckpointError(
            f"{path} has the format version {version}; this release reads {VERSION}: upgrade "
            "griffin-lm"
        )
    if made.get("checksum") != _checksum(made):
        raise CheckpointCorrupt(f"{path} is damaged or was edited: its checksum differs; {_AGAIN}")
    rows: Any = made.get("files")
    if not isinstance(rows, dict) or not all(map(_is_row, rows, rows.values())):
        raise CheckpointCorrupt(f"{path} does not list files of its own folder; {_AGAIN}")
    return made


def _check_file(path: Path, row: JSON) -> None:
    if not path.is_file():
        raise CheckpointCorrupt(f"{path} is missing; {_AGAIN}")
    size = path.stat().st_size
    if size != row["bytes"]:
        raise CheckpointCorrupt(f"{path} has {size} bytes instead of {row['bytes']}; {_AGAIN}")
    if _sha256(path) != row["sha256"]:
        raise CheckpointCorrupt(f"{path} is damaged: its SHA-256 differs; {_AGAIN}")


def _is_row(name: str, row: Any) -> bool:
    """Whether it describes a file inside of the folder."""
    pure = PurePosixPath(name)
    inside = not pure.is_absolute() and ".." not in pure.parts
    return inside and isinstance(row, dict) and {"bytes", "sha256"} <= set(row)


def _number(name: str) -> int | None:
    """The N of step-N, with or without a suffix."""
    digits = name.removeprefix("step-").partition(".")[0]
    return int(digits) if digits.isdecimal() else None


def _checksum(made: JSON) -> str:
    """SHA-256 of all that the manifest says, but for itself."""
    rest = {key: value for key, value in made.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
