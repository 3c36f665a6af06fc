"""Bytes in, characters out, with the way back: which byte a character began at.

A character split across two reads comes out with its last byte. Wrong bytes are refused with their
place, or become U+FFFD, one per maximal wrong run, as Python's `decode(errors="replace")` does.
"""

import codecs
import re
from typing import Literal

from griffin_lm.errors import InputError

Errors = Literal["strict", "replace"]

# A wrong run of n bytes is marked by a surrogate, which no valid text holds, until it is counted.
_MARK = 0xDC80
_MARKS = re.compile("[\udc80-\udc8f]")


def _mark(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return chr(_MARK + error.end - error.start), error.end


codecs.register_error("griffin-lm-mark", _mark)


class Utf8Reader:
    """Decodes a stream of UTF-8.

    Args:
        errors: what wrong bytes are: an error, or U+FFFD.
        begin: the place of the first byte in the whole, for messages.
        name: of the source, for messages.

    """

    def __init__(self, errors: Errors = "strict", begin: int = 0, name: str = "the text") -> None:
        self.place = begin
        """The byte after the characters that `take` took."""
        self._errors, self._name = errors, name
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="griffin-lm-mark")
        self._marked = ""  # characters that `take` has not taken yet

    def feed(self, data: bytes, final: bool = False) -> str:
        """Takes bytes; returns the characters that are whole by now.

        Raises:
            InputError: wrong bytes, unless they are to be replaced; their place is named. A
                character that is cut off at the end counts as wrong.

        """
        text = self._decoder.decode(data, final)
        self._marked += text
        wrong = _MARKS.search(text)
        if wrong is None:
            return text
        if self._errors == "replace":
            return _MARKS.sub("\ufffd", text)
        at = self.place + _size(self._marked[: len(self._marked) - len(text) + wrong.start()])
        cut = final and wrong.end() == len(text)
        raise InputError(
            f"{self._name} is not UTF-8: byte {at}"
            + (" begins a character that the end cuts off" if cut else " begins no character")
            + "; convert it, or replace what is wrong with U+FFFD (--errors replace)"
        )

    def take(self, count: int) -> int:
        """Moves `place` past the next so many characters; returns the bytes that they were."""
        size = _size(self._marked[:count])
        self._marked = self._marked[count:]
        self.place += size
        return size


def _size(marked: str) -> int:
    size = len(marked.encode("utf-8", "surrogatepass"))
    # each mark counts 3 bytes there, and stands for as many as it says
    return size + sum(ord(mark) - _MARK - 3 for mark in _MARKS.findall(marked))
