"""The hub: from an alias or an id such as "google/recurrentgemma-2b@main" to files on disk.

    names       aliases, ids, names that look alike
    selection   which files of a repository make one checkpoint
    client      requests through huggingface_hub, and its errors in our words
    cache       the cache's layout, and what of it is whole
    download    contents that resume at any byte, checked against their hashes
    needs       what it takes and what is at hand, before it begins
    fetch       all of these in order
    headers     what weights a repository has, by its headers alone

huggingface_hub is imported where it is used: a path or a bundled model never reaches it.
"""

from .cache import Snapshot
from .client import is_offline
from .fetch import preflight, preset_of, snapshot
from .headers import Remote, inspect_remote
from .machine import AtHand, memory_at_hand
from .names import ALIASES, HubId, near, parse
from .needs import Need, Preflight, size
from .watch import ProgressLine, Watch, on_terminal

__all__ = [
    "ALIASES",
    "AtHand",
    "HubId",
    "Need",
    "Preflight",
    "ProgressLine",
    "Remote",
    "Snapshot",
    "Watch",
    "inspect_remote",
    "is_offline",
    "memory_at_hand",
    "near",
    "on_terminal",
    "parse",
    "preflight",
    "preset_of",
    "size",
    "snapshot",
]
