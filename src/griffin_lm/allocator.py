"""What glibc's allocator does with freed memory: for the whole process, so programs say it.

Left alone it gives large blocks back to the system, which clears them, page by page, when they are
asked for again, and raises by itself, up to 32 MiB, the size from which a block counts as large.
"""

import ctypes
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4  # of malloc.h
_STEP = 64 * 2**20  # bytes by which the heap grows
_LARGE = 2**20


def keep_freed_memory() -> bool:
    """Keeps what is freed, for the next step of a training, and says whether it could.

    Large blocks then come from the heap, which grows to the most that was ever in use at a time
    (and what lies between) and is not given back before the process ends.
    """
    return _set((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, _STEP))


def give_back_freed_memory() -> bool:
    """Gives every freed block of 1 MiB or more back, and says whether it could.

    For long readings: what lies between blocks in use is then not kept (docs/log.md, 2026-11-26).
    """
    return _set((_MMAP_THRESHOLD, _LARGE))


def _set(*settings: tuple[int, int]) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return all(mallopt(name, value) == 1 for name, value in settings)
