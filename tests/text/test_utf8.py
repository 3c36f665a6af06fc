"""Bytes to characters, whatever the reads; where each character began; wrong bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from griffin_lm.errors import InputError
from griffin_lm.text.utf8 import Utf8Reader

PIECES = st.lists(st.binary(max_size=6) | st.sampled_from(["é", "日", "\U0001f600", "a\n"]))


def joined(pieces: list[bytes | str]) -> bytes:
    return b"".join(piece.encode() if isinstance(piece, str) else piece for piece in pieces)


@given(text=st.text(), sizes=st.lists(st.integers(1, 5), min_size=1))
def test_a_character_split_across_reads_comes_out_whole(text: str, sizes: list[int]) -> None:
    data, reader, found = text.encode(), Utf8Reader(), ""
    while data:
        for size in sizes:
            found += reader.feed(data[:size])
            data = data[size:]
    assert found + reader.feed(b"", final=True) == text


@given(pieces=PIECES, size=st.integers(1, 7), take=st.integers(1, 5))
def test_wrong_bytes_become_what_python_makes_of_them_and_are_counted(
    pieces: list[bytes | str], size: int, take: int
) -> None:
    data = joined(pieces)
    reader, found = Utf8Reader("replace", begin=7), ""
    for begin in range(0, len(data), size):
        found += reader.feed(data[begin : begin + size])
    found += reader.feed(b"", final=True)
    assert found == data.decode(errors="replace")
    for begin in range(0, len(found), take):
        reader.take(take)
        # what is left of the bytes is what is left of the text
        left = found[begin + take :]
        assert data[reader.place - 7 :].decode(errors="replace") == left
    assert reader.place == 7 + len(data)


@given(pieces=PIECES, size=st.integers(1, 7))
def test_the_first_wrong_byte_is_named(pieces: list[bytes | str], size: int) -> None:
    data = joined(pieces)
    try:
        data.decode()
        place = None
    except UnicodeDecodeError as error:
        place = error.start
    reader = Utf8Reader(name="log.txt")
    try:
        for begin in range(0, len(data), size):
            text = reader.feed(data[begin : begin + size])
            reader.take(len(text))
        reader.feed(b"", final=True)
        assert place is None
    except InputError as error:
        assert f"log.txt is not UTF-8: byte {place} begins" in str(error)


def test_a_character_that_the_end_cuts_off_is_said_to_be() -> None:
    reader = Utf8Reader()
    reader.feed("ab€".encode()[:-1])
    with pytest.raises(InputError, match="byte 2 begins a character that the end cuts off"):
        reader.feed(b"", final=True)
