"""fledgling's course: prose with notes to remember, asked for at growing distances."""

from .course import MemoCourse, MemoFeed

__all__ = ["MemoCourse", "MemoFeed"]
