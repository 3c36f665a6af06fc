"""Good checkpoints to damage, one fresh folder a test."""

from collections.abc import Callable
from pathlib import Path

import pytest

from griffin_lm.checkpoints import save_model
from tests.checkpoints.helpers import random_model


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """The files of a good checkpoint in every format, whole and in shards."""
    root = tmp_path_factory.mktemp("saved")
    found: dict[str, dict[str, bytes]] = {}
    for form in ("griffin", "huggingface"):
        for limit, kind in ((10**9, form), (9_000, f"{form} in shards")):
            save_model(random_model(), root / kind, form, max_shard_bytes=limit)
            found[kind] = {path.name: path.read_bytes() for path in (root / kind).iterdir()}
    return found


@pytest.fixture
def good(saved: dict[str, dict[str, bytes]], tmp_path: Path) -> Callable[[str], Path]:
    """Writes such a checkpoint into a fresh folder."""

    def write(kind: str) -> Path:
        folder = tmp_path / "m"
        folder.mkdir(exist_ok=True)
        for name, data in saved[kind].items():
            (folder / name).write_bytes(data)
        return folder

    return write
