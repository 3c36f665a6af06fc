"""Text in, ids out, piece by piece: the ids of all pieces are `encode`'s for the whole text."""

from collections.abc import Callable
from dataclasses import replace
from enum import Enum

from griffin_lm.errors import InputError
from griffin_lm.text.cuts import CutRule, neighbours

BLOCK = 1 << 16
"""Characters that are gathered before a safe place is looked for."""
LIMIT = 1 << 20
"""Characters without any safe place at which the text is cut all the same. A book has a safe place
every few characters; a million of one letter has none, and would be held, and merged, for ever."""


class Where(Enum):
    """Where a part of a text stands."""

    FIRST = "at the beginning"
    NEXT = "after a safe place"
    TORN = "after a cut that was forced"


class StreamEncoder:
    """Takes a text in pieces of any size; gives its ids as soon as they are certain.

    All that `feed`, `flush` and `finish` return, in a row, is `encode` of the whole text, whatever
    the pieces were. Ids are certain up to the last safe place (see `cuts`). `Tokenizer.encoder`
    makes one.

    Two exceptions, both said: where a vocabulary has no safe place that is known (`holds_back` is
    the reason), everything is held until `finish`; and where `LIMIT` characters in a row have none,
    the text is cut there (`forced` counts it). Also forced cuts depend on the text alone, not on
    the pieces.

    Args:
        encode: ids of a part, given (part, `Where` it stands).
        rule: the safe places.
        begin: ids before the first: BOS, or none.
        where: what comes before: nothing, or a text that ended as another encoder's `where` says.
        whole: names that are never cut: turn markers, where they are taken for such.

    """

    def __init__(
        self,
        encode: Callable[[str, Where], list[int]],
        rule: CutRule,
        begin: list[int],
        where: Where = Where.FIRST,
        whole: frozenset[str] = frozenset(),
    ) -> None:
        self._encode, self._rule = encode, _sparing(rule, whole)
        self._begin = begin
        self.where = where
        """Where the next part stands."""
        self._text = ""
        self._more: list[str] = []  # pieces that follow it, joined when they are looked at
        self._waiting = 0  # characters of these
        self._searched = 0  # characters of the text among which no safe place was found
        self.characters = 0
        """Characters of the text whose ids have been given: up to a safe place, or the end."""
        self.forced = 0
        """Cuts that had to be made where the text has no safe place."""
        self._finished = False

    @property
    def holds_back(self) -> str:
        """Why everything is held until `finish`, or "" where ids come as the text does."""
        return "" if self._rule.pair is not None else self._rule.why_not

    def feed(self, text: str) -> list[int]:
        """Takes the next piece of the text; returns the ids that became certain, often none.

        Raises:
            InputError: a lone surrogate in the text, or a text after `finish`.

        """
        if self._finished:
            raise InputError("this encoder has finished its text; make another one")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            at = self.characters + len(self._text) + self._waiting + error.start
            raise InputError(
                f"the text has a lone surrogate (U+{ord(text[error.start]):04X}) at character "
                f"{at}, which is half a character; read it with the right encoding"
            ) from None
        self._more.append(text)
        self._waiting += len(text)
        waiting = len(self._text) - self._searched + self._waiting
        return self._take() if waiting >= BLOCK else []

    def flush(self) -> list[int]:
        """Returns what is certain by now, without waiting for more text."""
        return self._take()

    def finish(self) -> list[int]:
        """Returns the ids of what is left: the text has ended."""
        ids = self._take()
        self._finished = True
        return ids + self._give(len(self._text))

    def _take(self) -> list[int]:
        self._text = "".join([self._text, *self._more])
        self._more, self._waiting = [], 0
        ids: list[int] = []
        while self._rule.pair is not None and len(self._text) > self._searched + 1:
            place = self._rule.last(self._text, self._searched, LIMIT)
            if place:
                ids += self._give(place)
            elif len(self._text) > LIMIT:
                ids += self._give(LIMIT)
                self.forced += 1
                self.where = Where.TORN
            else:
                self._searched = len(self._text) - 1
        return ids

    def _give(self, count: int) -> list[int]:
        part, self._text = self._text[:count], self._text[count:]
        self.characters += count
        self._searched = 0
        ids, self._begin = self._begin, []
        if self.where is Where.TORN and (place := self._rule.first(part)):
            # up to the first safe place, wherever this part happens to end
            ids = ids + self._encode(part[:place], Where.TORN)
            part, self.where = part[place:], Where.NEXT
        if part:
            ids = ids + self._encode(part, self.where)
            self.where = Where.NEXT
        return ids


def _sparing(rule: CutRule, whole: frozenset[str]) -> CutRule:
    """The rule with no place inside these names."""
    pair = rule.pair
    if pair is None or not whole:
        return rule
    inside = neighbours(whole)
    return replace(rule, pair=lambda x, y: x + y not in inside and pair(x, y))
