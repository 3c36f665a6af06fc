"""From a hub id to a folder on disk: look, choose, compare with the machine, fetch, check."""

from contextlib import suppress
from dataclasses import replace

from ...errors import CheckpointNotFound, GriffinError
from ...models import PRESETS, ModelConfig
from ..files import CONFIG
from . import cache
from .cache import Snapshot
from .client import Listing, endpoint, is_offline, listing
from .download import bytes_here, download, here
from .names import HubId
from .needs import Need, Preflight, plan
from .selection import Selection, select
from .watch import Watch


def snapshot(
    hub: HubId,
    offline: bool | None = None,
    need: Need | None = None,
    watch: Watch | None = None,
) -> Snapshot:
    """The checkpoint on disk, fetched if it is not there.

    offline: use the cache alone, as HF_HUB_OFFLINE does. need: how it will be loaded; None: it will
    not be, so memory is not compared. Raises HubError (login, licence, network, disk, memory),
    CheckpointNotFound, CheckpointCorrupt.
    """
    watch = watch or Watch()
    there = _cached(hub)
    if is_offline(offline):
        if isinstance(there, Snapshot):
            return there
        raise cache.how_to_get(hub, there)
    if isinstance(there, Snapshot) and hub.pinned:
        return there
    try:
        found, selection = choose(hub)
        _plan(found, selection, None).check()  # the disk; before a byte is fetched
        selection = small_files(found, selection)
    except GriffinError as error:
        if isinstance(there, Snapshot):
            watch.notice(f"{error}. Going on with what the cache has, commit {there.commit[:8]}")
            return there
        raise
    if not all(here(found, name) for name in selection.files):
        order = _plan(found, selection, need)
        watch.plan(order)
        order.check()
        if told := order.warning():
            watch.notice(told)
        download(found, selection.weights, watch.progress)
    sizes = {name: found.files[name].size for name in selection.files}
    with suppress(OSError):  # a cache that may only be read serves all the same
        cache.remember(hub, found.commit, selection, sizes)
    return planned(found, selection)


def preflight(hub: HubId, need: Need | None = None) -> Preflight:
    """What a download would take, and what is at hand. Fetches config.json and its like alone."""
    found, selection = look(hub)
    return _plan(found, selection, need)


def look(hub: HubId) -> tuple[Listing, Selection]:
    """`choose`, then `small_files`: all that can be known of a checkpoint without its weights."""
    found, selection = choose(hub)
    return found, small_files(found, selection)


def choose(hub: HubId) -> tuple[Listing, Selection]:
    """What the hub holds under this id, and which of its files make the checkpoint."""
    found = listing(hub)
    return found, select(hub.repo, found.files)


def small_files(found: Listing, selection: Selection) -> Selection:
    """Fetches config.json, the vocabulary and the index; the weights' files as that names them."""
    download(found, selection.small, _silent)
    folder = cache.snapshot_folder(found.hub, found.commit)
    weights = cache.shards(folder, selection)
    if lacking := [name for name in weights if name not in found.files]:
        raise CheckpointNotFound(
            f"{found.hub} at {endpoint()} lacks {', '.join(lacking[:4])}, which its index names: "
            "it was not uploaded whole; try another @revision"
        )
    return replace(selection, weights=tuple(weights))


def config_of(snapshot: Snapshot) -> ModelConfig | None:
    """The config of a checkpoint of which the small files are there; None where it is not known.

    DeepMind's layouts carry none; their repositories are named after a preset.
    """
    from .. import read_config

    # a .pt file is not there yet: its folder has the config, if there is one
    home = snapshot.path.parent if snapshot.path.suffix == ".pt" else snapshot.path
    if (home / CONFIG).exists():
        return read_config(home)
    return preset_of(snapshot.hub)


def preset_of(hub: HubId) -> ModelConfig | None:
    """The preset that a repository is named after: words for kind and layout follow its name."""
    name = hub.repo.rpartition("/")[2].lower().removeprefix("meta-")
    return next((PRESETS[preset] for preset in PRESETS if name.startswith(preset)), None)


def _cached(hub: HubId) -> Snapshot | GriffinError:
    try:
        return cache.cached(hub)
    except GriffinError as error:
        return error


def _plan(found: Listing, selection: Selection, need: Need | None) -> Preflight:
    total = sum(found.files[name].size for name in selection.files)
    already = sum(bytes_here(found, name) for name in selection.files)
    stored = sum(found.files[name].size for name in selection.weights)
    config = None if need is None else config_of(planned(found, selection))
    where = cache.root()
    return plan(
        str(found.hub), found.commit, selection.words, total, already, where, config, stored, need
    )


def planned(found: Listing, selection: Selection) -> Snapshot:
    """The snapshot as it is once everything was fetched."""
    folder = cache.snapshot_folder(found.hub, found.commit)
    return Snapshot(
        found.hub,
        found.commit,
        folder,
        folder / selection.root,
        selection.files,
        selection.words,
    )


def _silent(done: int, total: int) -> None:
    """Small files come without a line of progress."""
