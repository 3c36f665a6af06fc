"""Reading and writing a vocabulary's files, with errors that name them."""

import os
import tempfile
from pathlib import Path

from griffin_lm.errors import TokenizerError

MAX_FILE_BYTES = 1 << 28
"""No vocabulary is larger; a file that is would be weights under a wrong name."""


def read_vocabulary(path: Path) -> bytes:
    """Returns a file's bytes; TokenizerError where it is missing, no file, empty or enormous."""
    try:
        if path.is_dir():
            raise TokenizerError(f"{path}: a folder where a tokenizer file should be")
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise TokenizerError(
                f"{path}: {size} bytes is too large for a tokenizer; is this the weights' file?"
            )
        data = path.read_bytes()
    except OSError as error:
        raise TokenizerError(
            f"{path}: cannot be read ({error.strerror or error}); check the path and its rights"
        ) from error
    if not data:
        raise TokenizerError(f"{path}: the file is empty; copy or download it again")
    return data


def write_aside(path: Path, data: bytes) -> None:
    """Writes a file aside and renames it into place; TokenizerError where that fails."""
    aside: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, aside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(aside, 0o644)  # mkstemp's 0600 would hide the file from other users
        os.replace(aside, path)
    except OSError as error:
        if aside is not None:
            Path(aside).unlink(missing_ok=True)
        raise TokenizerError(
            f"{path}: cannot be written ({error.strerror or error}); "
            "free some space or choose another folder"
        ) from error
