"""Sessions: named states on disk, with points to return to."""

from .sessions import Info, Sessions
from .store import Kind, Store

__all__ = ["Info", "Kind", "Sessions", "Store"]
