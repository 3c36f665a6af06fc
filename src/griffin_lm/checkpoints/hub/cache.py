"""The hub's cache on disk, in huggingface_hub's own layout, which other programs share.

    HF_HUB_CACHE/models--owner--name/
        blobs/HASH               contents; HASH.incomplete while one is being fetched
        snapshots/COMMIT/NAME    links to them
        refs/BRANCH              the commit that a branch or tag had last
        griffin-lm/COMMIT.json   ours: the files that make the checkpoint, with their sizes

https://huggingface.co/docs/huggingface_hub/guides/manage-cache
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import CheckpointNotFound, GriffinError
from ..files import parse_json
from .client import RemoteFile, endpoint, settings
from .names import HubId
from .selection import Selection, select


@dataclass(frozen=True)
class Snapshot:
    """A checkpoint of the hub on disk.

    path: what to load: the snapshot's folder, a folder in it, or a .pt file. words: what was chosen
    among what the repository holds.
    """

    hub: HubId
    commit: str
    folder: Path
    path: Path
    files: tuple[str, ...]
    words: str


def root() -> Path:
    """HF_HUB_CACHE, or what HF_HOME makes it."""
    return Path(settings().HF_HUB_CACHE).expanduser()


def storage(hub: HubId) -> Path:
    """The folder of one repository."""
    return root() / f"models--{hub.repo.replace('/', '--')}"


def blob(hub: HubId, file: RemoteFile) -> Path:
    """Where the content of a file lies, or will lie."""
    return storage(hub) / "blobs" / file.etag


def partial(hub: HubId, file: RemoteFile) -> Path:
    """Where the first part of a file lies while it is being fetched."""
    return storage(hub) / "blobs" / f"{file.etag}.incomplete"


def snapshot_folder(hub: HubId, commit: str) -> Path:
    """Where a commit's files lie under their names."""
    return storage(hub) / "snapshots" / commit


def commit_of(hub: HubId) -> str | None:
    """The commit of a revision as last heard of; None where it was never fetched."""
    if hub.pinned:
        return hub.revision
    try:
        commit = (storage(hub) / "refs" / hub.revision).read_text().strip()
    except OSError:
        return None
    return commit if HubId(hub.repo, commit).pinned else None


def remember(hub: HubId, commit: str, selection: Selection, sizes: dict[str, int]) -> None:
    """Notes the commit of the revision, and what the checkpoint consists of."""
    if not hub.pinned:
        _write(storage(hub) / "refs" / hub.revision, commit)
    note = {
        "root": selection.root,
        "words": selection.words,
        "files": {name: sizes[name] for name in selection.files},
    }
    _write(storage(hub) / "griffin-lm" / f"{commit}.json", json.dumps(note, indent=1) + "\n")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(text)
    os.replace(aside, path)


def cached(hub: HubId) -> Snapshot:
    """The checkpoint as it lies in the cache, whole, without asking anyone.

    Raises CheckpointNotFound saying what is missing.
    """
    commit = commit_of(hub)
    folder = snapshot_folder(hub, commit or "none")
    if commit is None or not folder.is_dir():
        raise CheckpointNotFound(f"{hub} is not in the cache {root()}")
    chosen, root_, words = _noted(hub, commit) or _seen(hub, folder)
    missing = [name for name, size in chosen.items() if not _whole(folder / name, size)]
    if missing:
        more = f" and {len(missing) - 4} more" if len(missing) > 4 else ""
        raise CheckpointNotFound(
            f"of {hub} the cache {root()} lacks {', '.join(missing[:4])}{more}, so it was not "
            "fetched to its end"
        )
    return Snapshot(hub, commit, folder, folder / root_, tuple(chosen), words)


def how_to_get(hub: HubId, error: GriffinError) -> CheckpointNotFound:
    """What is missing in offline mode, and the ways to it."""
    revision = "" if hub.revision == "main" else f" --revision {hub.revision}"
    return CheckpointNotFound(
        f"{error}, and offline mode (--offline or HF_HUB_OFFLINE) forbids fetching it; leave that "
        f"out once, or where there is a network run `hf download {hub.repo}{revision}` and copy "
        f"{storage(hub).name} into the cache; {endpoint()}/{hub.repo} has the licence"
    )


def _noted(hub: HubId, commit: str) -> tuple[dict[str, int | None], str, str] | None:
    """Files with sizes, root and words as we noted them; None where another program fetched it."""
    path = storage(hub) / "griffin-lm" / f"{commit}.json"
    try:
        note: dict[str, Any] = parse_json(path.read_bytes(), path)
        files = {str(name): int(size) for name, size in note["files"].items()}
        return {**files}, str(note["root"]), str(note["words"])
    except (OSError, GriffinError, KeyError, TypeError, ValueError, AttributeError):
        return None


def _seen(hub: HubId, folder: Path) -> tuple[dict[str, int | None], str, str]:
    """The same from the names in the folder and the index of its shards."""
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    selection = select(f"the cached {hub}", names)
    wanted = [*selection.small, *shards(folder, selection)]
    return dict.fromkeys(wanted), selection.root, selection.words


def shards(folder: Path, selection: Selection) -> list[str]:
    """The weights' files as the index names them, once it is there; without one, as selected."""
    index = next((name for name in selection.small if name.endswith(".index.json")), None)
    if index is None or not (folder / index).exists():
        return list(selection.weights)
    where = parse_json((folder / index).read_bytes(), folder / index).get("weight_map")
    home = f"{selection.root}/" if selection.root else ""
    files = set(where.values()) if isinstance(where, dict) else set[Any]()
    return sorted(f"{home}{file}" for file in files if isinstance(file, str))


def _whole(path: Path, size: int | None) -> bool:
    try:
        return path.stat().st_size == size if size is not None else path.is_file()
    except OSError:
        return False
