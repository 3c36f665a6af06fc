"""Checkpoints that appear whole or not at all, whatever happens while one is being written.

    out/step-120.tmp-4f1c/   written here, every file flushed to the disk, the manifest last
    out/step-120/            its name after one rename
    out/latest               then names it; only then are older ones removed

A kill, a power cut or a full disk at any point leaves the checkpoint before it as it was.
"""

import re
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ...errors import CheckpointCorrupt, TrainingError
from ...shapes import JSON
from . import disk, manifest
from .manifest import MANIFEST, verify

LATEST = "latest"
# `.old-`: the one that is being replaced by another of the same step
_NAME = re.compile(r"step-(\d+)(\.old-[0-9a-f]+)?")


def commit(out: Path, step: int, write: Callable[[Path], None], keep: int) -> Path:
    """A checkpoint written by `write` into the folder that it is given: `out`/step-N/.

    keep: how many stay, this one included. Raises TrainingError where the disk is full, broken or
    not writable: then the checkpoints before it are as they were.
    """
    try:
        aside = begin(out, step)
        try:
            write(aside)
            return finish(out, step, aside, keep)
        except Exception:
            with suppress(OSError):  # else removed before the next one is written
                disk.DISK.remove(aside)
            raise
    except OSError as error:
        raise could_not_save(out, step, error) from error


def begin(out: Path, step: int) -> Path:
    """An empty folder `step-N.tmp-<nonce>` in `out`, leftovers removed. Raises OSError."""
    if not out.is_dir():
        disk.DISK.mkdir(out)
        disk.DISK.fsync(out.parent)
    clean(out)
    aside = out / f"step-{step}.tmp-{secrets.token_hex(4)}"
    disk.DISK.mkdir(aside)
    return aside


def finish(
    out: Path,
    step: int,
    aside: Path,
    keep: int,
    facts: JSON | None = None,
    known: JSON | None = None,
) -> Path:
    """What was written in `aside` becomes the checkpoint of that step. Raises OSError.

    facts, known: see `describe`. Raises CheckpointCorrupt where the disk gives back other bytes
    than it was given.
    """
    real = disk.DISK
    for path in sorted(aside.rglob("*"), reverse=True):  # what is in a folder before the folder
        real.fsync(path)
    text = manifest.describe(aside, step, facts, known)
    real.write(aside / MANIFEST, lambda path: path.write_bytes(text))
    real.fsync(aside / MANIFEST)
    real.fsync(aside)
    folder = out / f"step-{step}"
    if folder.exists():
        real.rename(folder, out / f"step-{step}.old-{secrets.token_hex(4)}")
        real.fsync(out)
    real.rename(aside, folder)
    real.fsync(out)
    verify(folder)
    _point(out, folder.name)
    with suppress(OSError):  # the new one is safe; what could not be removed is tried again
        clean(out)
        prune(out, keep)
    return folder


def newest(out: Path, say: Callable[[str], None]) -> Path | None:
    """The newest checkpoint that verifies, or None where there is none.

    say: told of each that is passed over, and why. Raises CheckpointCorrupt where there are some
    and none verifies, CheckpointError for those that a later release wrote.
    """
    found = held(out)
    if (named := _named(out)) and not (out / named).exists():
        say(f"{out / LATEST} names {named}, which is not there")
    for folder in found:
        try:
            verify(folder)
        except CheckpointCorrupt as error:
            say(f"passed over {folder.name}: {error}")
        else:
            return folder
    if found:
        raise CheckpointCorrupt(
            f"none of the {len(found)} checkpoints in {out} can be used (the newest is "
            f"{found[0].name}); restore one, or choose another --out to start again"
        )
    return None


def held(out: Path) -> list[Path]:
    """What has a checkpoint's name, newest first; not verified."""
    if not out.is_dir():
        return []
    matches = ((_NAME.fullmatch(path.name), path) for path in out.iterdir() if path.is_dir())
    rows = [(int(match[1]), match[2] is None, path) for match, path in matches if match]
    return [path for _, _, path in sorted(rows, reverse=True)]


def clean(out: Path) -> None:
    """Removes what an interrupted save left. Raises OSError.

    Only for the one process that saves in `out`, while it is not saving.
    """
    for path in sorted(out.glob("step-*.tmp-*")):
        disk.DISK.remove(path)
    for path in held(out):
        home = path.with_name(path.name.partition(".")[0])
        if path == home:
            continue
        try:
            verify(home)
        except CheckpointCorrupt:  # the replacement did not come, or is broken
            continue
        _drop(path)


def prune(out: Path, keep: int) -> None:
    """Removes all but the `keep` newest complete ones, oldest first. Raises OSError.

    Never the one that `latest` names; what has no manifest is left alone and does not count.
    """
    complete = [path for path in held(out) if (path / MANIFEST).is_file()]
    for path in reversed(complete[max(keep, 1) :]):
        if path.name != _named(out):
            _drop(path)


def could_not_save(out: Path, step: int, error: OSError) -> TrainingError:
    """What to say of a disk that refused a checkpoint."""
    named = _named(out)
    kept = f"{named} is as it was" if named else "there is no older one"
    return TrainingError(
        f"could not save step {step} to {out}: {error.strerror or error}; {kept}. Make room or "
        "give another --out, then run the same command with --resume auto"
    )


def _point(out: Path, name: str) -> None:
    """Makes `latest` name a checkpoint."""
    aside = out / f"{LATEST}.tmp"
    disk.DISK.write(aside, lambda path: path.write_text(f"{name}\n"))
    disk.DISK.fsync(aside)
    disk.DISK.rename(aside, out / LATEST)
    disk.DISK.fsync(out)


def _named(out: Path) -> str | None:
    """The name in `latest`, or None where there is none that could be one."""
    try:
        name = (out / LATEST).read_text(errors="replace").strip()
    except OSError:
        return None
    return name if _NAME.fullmatch(name) else None


def _drop(folder: Path) -> None:
    """Renamed first, so that one that is half removed has no checkpoint's name."""
    aside = folder.with_name(f"{folder.name.partition('.')[0]}.tmp-{secrets.token_hex(4)}")
    disk.DISK.rename(folder, aside)
    disk.DISK.remove(aside)
