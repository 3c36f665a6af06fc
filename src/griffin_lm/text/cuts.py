"""Where a text may be cut in two so that the ids of the parts, in a row, are those of the whole.

A *safe place* lies between two neighbouring characters and depends on these two alone. What makes
one safe depends on the vocabulary: `sentencepiece_cuts` and `json_cuts` say so, with the proofs.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

_REMEMBERED = 1 << 16  # pairs whose answer is kept; a text has a few thousand


@dataclass
class CutRule:
    """The safe places of one vocabulary.

    pair          whether a text may be cut between two characters; None: nowhere
    why_not       where `pair` is None, the reason
    prefix_again  how the parts after the first are encoded: as the first is (True: the vocabulary
                  takes spaces off both ends and puts one in front), or as text that continues
    """

    pair: Callable[[str, str], bool] | None
    why_not: str = ""
    prefix_again: bool = False
    _known: dict[str, bool] = field(default_factory=dict[str, bool], init=False, repr=False)

    def safe(self, both: str) -> bool:
        """Whether a text may be cut between these two characters."""
        answer = self._known.get(both)
        if answer is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            answer = self.pair is not None and self.pair(both[0], both[1])
            self._known[both] = answer
        return answer

    def last(self, text: str, after: int, limit: int) -> int:
        """The last safe place p with after < p <= limit, or 0: text[:p] and text[p:] are parts."""
        safe = self.safe
        for place in range(min(limit, len(text) - 1), max(after, 0), -1):
            if safe(text[place - 1 : place + 1]):
                return place
        return 0

    def first(self, text: str) -> int:
        """The first safe place in the text, or 0."""
        return next((p for p in range(1, len(text)) if self.safe(text[p - 1 : p + 1])), 0)

    def atoms(self, text: str) -> Iterator[str]:
        """The text cut at every safe place."""
        begin = 0
        if self.pair is not None:
            safe = self.safe
            for place, both in enumerate(map("".join, pairwise(text)), 1):
                if safe(both):
                    yield text[begin:place]
                    begin = place
        yield text[begin:]


def neighbours(pieces: Iterable[str]) -> set[str]:
    """Every two characters that some piece holds next to each other."""
    return {piece[i : i + 2] for piece in pieces for i in range(len(piece) - 1)}
