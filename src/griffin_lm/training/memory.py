"""Memory that a step frees stays with the process, for the next step.

glibc gives every large block back to the system when it is freed, and the system clears it, page by
page, when it is asked for again: in training that is most of what a step allocates.
"""

import ctypes
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # of malloc.h
_STEP = 64 * 2**20  # bytes by which the heap grows


def keep_freed_memory() -> bool:
    """Tells glibc's allocator, for the whole process, to keep what is freed; whether it could.

    Large blocks then come from the heap, which grows to the most that was ever in use at a time
    (and what lies between) and is not given back before the process ends.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, _STEP))
    return all(mallopt(name, value) == 1 for name, value in settings)
