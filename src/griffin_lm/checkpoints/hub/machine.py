"""What this machine has at hand: memory of a device, and disk under a folder."""

import shutil
from pathlib import Path
from typing import NamedTuple

import torch

_CGROUP = Path("/sys/fs/cgroup")  # Linux: what a container may use


class AtHand(NamedTuple):
    """Bytes of memory that a device has free now, and in all."""

    free: int
    total: int


def memory_at_hand(device: torch.device | str = "cpu") -> AtHand:
    """Of a CUDA device its own memory, else the machine's, less where a container has a limit."""
    device = torch.device(device)
    if device.type == "cuda":
        return AtHand(*torch.cuda.mem_get_info(device))
    import psutil

    found = psutil.virtual_memory()
    free, total = int(found.available), int(found.total)
    limit, used = _number(_CGROUP / "memory.max"), _number(_CGROUP / "memory.current")
    if limit is not None and used is not None:
        # the page cache counts as used there, but is given back on demand
        used -= _of_stat("inactive_file")
        free, total = min(free, max(limit - used, 0)), min(total, limit)
    return AtHand(free, total)


def disk_at_hand(folder: Path) -> int:
    """Bytes free where the folder lies, or will lie once it is made."""
    for place in (folder, *folder.absolute().parents):
        try:
            return shutil.disk_usage(place).free
        except OSError:
            continue
    return 0


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # no such limit, or "max"
        return None


def _of_stat(name: str) -> int:
    try:
        rows = (_CGROUP / "memory.stat").read_text().splitlines()
        return next((int(row.split()[1]) for row in rows if row.startswith(f"{name} ")), 0)
    except (OSError, ValueError, IndexError):
        return 0
