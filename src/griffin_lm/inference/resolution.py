"""From what a user calls a model to the path of its files."""

from os import PathLike, fspath
from pathlib import Path

from ..checkpoints.adapters import refuse_adapter
from ..checkpoints.detection import latest_of_run
from ..checkpoints.hub import ALIASES, Need, Watch, near, parse, snapshot
from ..errors import CheckpointNotFound
from ..models import PRESETS

BUNDLED = {"fledgling": Path(__file__).parent.parent / "fledgling"}


def find(
    source: str | PathLike[str],
    offline: bool | None = None,
    need: Need | None = None,
    watch: Watch | None = None,
) -> Path:
    """Where the checkpoint lies: "fledgling", an existing path, an alias, a hub id; in this order.

    The folder of a training run stands for the checkpoint that it names as its latest.
    Only the last two reach for the network, and not with offline=True (or HF_HUB_OFFLINE), where
    the hub's cache must have them. need: dtype and device to compare with before a download. watch:
    who is told about it. Raises `CheckpointNotFound` with the way on, and what `snapshot` raises.
    """
    name = fspath(source)
    if name in BUNDLED:
        path = BUNDLED[name]
        if not (path / "config.json").exists():
            raise CheckpointNotFound(
                f"the bundled model {name!r} is missing from {path}; install griffin-lm again"
            )
        return path
    path = Path(name).expanduser()
    if path.exists():
        refuse_adapter(path)
        return latest_of_run(path) or path
    if name in PRESETS and name not in ALIASES:
        raise CheckpointNotFound(
            f"{name!r} names a configuration, and no published weights of it are known here; "
            f"griffin.build({name!r}) has random ones"
        )
    hub = parse(name) if isinstance(source, str) else None
    if hub is not None:
        return snapshot(hub, offline, need, watch).path
    like = near(name)
    raise CheckpointNotFound(
        f"there is nothing at {name!r}{f' (did you mean {like[0]}?)' if like else ''}; give a "
        "checkpoint's folder or file, a hub id such as google/recurrentgemma-2b-it, an alias ("
        f"{', '.join(ALIASES)}), or the bundled model: {', '.join(BUNDLED)}"
    )
