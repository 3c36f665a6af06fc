"""Runs that resume: checkpoints that are whole or not there, and what goes into one."""

from .content import refuse_other_config, state_from_list, state_to_list
from .protocol import commit, held
from .saver import Saver, load, newest
from .together import Together

__all__ = [
    "Saver",
    "Together",
    "commit",
    "held",
    "load",
    "newest",
    "refuse_other_config",
    "state_from_list",
    "state_to_list",
]
