"""One process or many: who they are, how they agree, who keeps which part of the model."""

from .joining import joined
from .processes import Alone, Processes, processes_of, whole

__all__ = ["Alone", "Processes", "joined", "processes_of", "whole"]
