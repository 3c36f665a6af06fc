"""`griffin data verify`: token files against their own hashes, other files against known ones."""

from pathlib import Path
from typing import Any

from .known import identify
from .prepared import verify
from .shards import SUFFIX, Progress


def check(path: Path, progress: Progress | None = None) -> dict[str, Any]:
    """Reads every byte of a token file, a prepared folder, or a file known by its hash.

    Returns:
        `line` to print, and the figures behind it.

    Raises:
        DataError: damaged, not complete, or not known; the file and the reason are named.

    """
    if path.is_dir() or path.suffix == SUFFIX:
        shards = verify(path, progress)
        return {
            "line": f"{path}: whole: {len(shards):,} documents, {shards.tokens:,} tokens in "
            f"{len(shards.files)} files, tokenizer {shards.fingerprint[:12]}",
            "documents": len(shards),
            "tokens": shards.tokens,
            "tokenizer": shards.fingerprint,
            "files": {file.path.name: file.header.sha256 for file in shards.files},
        }
    known = identify(path, progress)
    return {
        "line": f"{path}: {known.what} (SHA-256 {known.sha256})",
        "what": known.what,
        "sha256": known.sha256,
    }
