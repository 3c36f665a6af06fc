"""Ids in, text out, piece by piece: the one decoder behind `decode` and `decoder()`.

A character may lie across several ids (byte fallback, byte-level BPE). Text comes out as soon as it
is certain and never in half characters; bytes that cannot become a character come out as U+FFFD as
soon as that is known, one per maximal wrong run (Unicode 15, section 3.9), as Python does.
"""

import codecs
from collections.abc import Callable
from enum import Enum

Surface = str | bytes | None
"""What an id adds to the text: characters, bytes of characters, or nothing (a control id)."""


class LeadingSpace(Enum):
    """What happens to spaces at the very start of a decoded text."""

    KEEP = "keep"
    """The vocabulary adds none, or the text continues an earlier one."""
    DROP_ONE = "drop one"
    """Encoding puts one in front (SentencePiece's dummy prefix), so decoding takes one away."""
    DROP_ALL = "drop all"
    """Encoding also removes spaces of the text's own there, so none of them is the text's."""


class StreamDecoder:
    """Turns ids into text one at a time; the pieces joined are what `decode` gives.

    Args:
        surface: what one id adds; raises InputError for an id that the vocabulary lacks.
        leading_space: what happens to spaces at the start.

    """

    def __init__(self, surface: Callable[[int], Surface], leading_space: LeadingSpace) -> None:
        self._surface = surface
        self._leading_space = leading_space
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, token: int) -> str:
        """Takes one id; returns the text that became certain with it, often "" or a word.

        Ids that give no text change nothing, so bytes on both sides of one still join.

        Raises:
            InputError: the vocabulary has no such id.

        """
        surface = self._surface(token)
        if not surface:
            return ""
        if isinstance(surface, bytes):
            return self._trim(self._utf8.decode(surface))
        # Characters after an unfinished one: what was pending can no longer become a character.
        return self._trim(self._utf8.decode(b"", final=True) + surface)

    def finish(self) -> str:
        """Returns what is left when no id follows: U+FFFD for an unfinished character, or ""."""
        return self._trim(self._utf8.decode(b"", final=True))

    def _trim(self, text: str) -> str:
        if not text or self._leading_space is LeadingSpace.KEEP:
            return text
        if self._leading_space is LeadingSpace.DROP_ONE:
            self._leading_space = LeadingSpace.KEEP
            return text.removeprefix(" ")
        text = text.lstrip(" ")
        if text:
            self._leading_space = LeadingSpace.KEEP
        return text
