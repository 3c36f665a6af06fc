"""Where the reading of a prompt pauses: a function of its tokens alone.

A state depends, in its last bits, on where the reading that made it paused. If every prompt pauses
at the same places as every other that begins like it, then a state that an earlier prompt left at
such a place is, to the bit, the one that reading again would give: a hit in the cache cannot change
an answer (docs/decisions/0014).
"""

from collections.abc import Collection, Sequence


def canonical_cuts(
    ids: Sequence[int], chunk: int, markers: Collection[int], asked: Collection[int] = ()
) -> list[int]:
    """Numbers of tokens, ascending, after which the reading of a prompt pauses, whatever follows.

    At every `chunk` tokens, before every marker that opens a turn, and where it is `asked` for.
    The last token is never read ahead, so none exceeds len(ids) - 1.
    """
    most = len(ids) - 1
    cuts = {*range(chunk, most + 1, chunk), *asked}
    if markers:
        cuts |= {at for at, token in enumerate(ids) if token in markers and at}
    return sorted(cut for cut in cuts if 0 < cut <= most)


def all_cuts(canonical: Sequence[int], length: int) -> list[int]:
    """The same, with the end of reading: after all tokens but the last."""
    end = length - 1
    return [*canonical, end] if end > (canonical[-1] if canonical else 0) else list(canonical)
