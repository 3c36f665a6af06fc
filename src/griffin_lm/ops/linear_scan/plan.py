"""Whether a scan on a GPU goes through time in one piece or in chunks side by side: a cost model.

In one piece, each program walks all steps of its channels: every number is read once. That fills
the machine where B R channels are many. In chunks, all are first read for what each makes of the
state (a product of decays, a last state), then again with the state each begins with: more bytes,
but T steps no longer wait for each other. docs/decisions/0016 says why not one pass with a
look-back.
"""

from typing import NamedTuple

CHANNELS = 64  # of a program: one warp, two neighbours (4 bytes of bf16) a thread
ROWS = 16  # steps that are in registers together
CHUNKS = (64, 128, 256, 512, 1024, 2048)  # steps a chunk may have

# Estimates for an H200, in seconds, of which nothing has been measured yet (docs/results/gpu.md).
# What the model decides depends on their proportions, and near the border both ways cost the same.
_STEP = 60e-9  # a program's step: about 90 instructions of one warp
_LINK = 5e-9  # a step from a chunk's state to the next one's
_LAUNCH = 3e-6  # of a kernel
_BYTE = 1 / 4.0e12  # of the memory
_RESIDENT = 8  # programs that a multiprocessor has room for


class Plan(NamedTuple):
    """chunk: steps of a chunk; chunks: how many of them make T. One chunk: in one piece."""

    chunk: int
    chunks: int


def plan(batch: int, steps: int, width: int, nbytes: int, reread: int, processors: int) -> Plan:
    """The cheapest way through (batch, steps, width).

    nbytes: read and written for an element in one piece; reread: of those, what a pass for the
    chunks' states reads again. processors: multiprocessors of the device.
    """
    best, least = (
        Plan(max(steps, 1), 1),
        _seconds(batch, steps, width, nbytes, reread, processors, Plan(max(steps, 1), 1)),
    )
    for chunk in CHUNKS:
        tried = Plan(chunk, -(-steps // chunk))
        if tried.chunks == 1:
            break
        seconds = _seconds(batch, steps, width, nbytes, reread, processors, tried)
        if seconds < least:
            best, least = tried, seconds
    return best


def _seconds(
    batch: int, steps: int, width: int, nbytes: int, reread: int, processors: int, way: Plan
) -> float:
    """What a plan is expected to take."""
    elements = batch * steps * width
    programs = batch * -(-width // CHANNELS) * way.chunks
    waves = -(-programs // (processors * _RESIDENT))
    if way.chunks == 1:
        return _LAUNCH + max(elements * nbytes * _BYTE, waves * steps * _STEP)
    walking = 2 * waves * way.chunk * _STEP + way.chunks * _LINK
    return 3 * _LAUNCH + max(elements * (nbytes + reread) * _BYTE, walking)
