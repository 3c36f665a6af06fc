"""The engine: continuous batching over slots of state, for servers and for many prompts at once."""

from .engine import Engine
from .mark import Mark
from .request import Event, Failed, Finished, Job, Piece, Request, RowOptions, Scored
from .thread import EngineThread

__all__ = [
    "Engine",
    "EngineThread",
    "Event",
    "Failed",
    "Finished",
    "Job",
    "Mark",
    "Piece",
    "Request",
    "RowOptions",
    "Scored",
]
