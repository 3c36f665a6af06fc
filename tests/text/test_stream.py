"""When text comes out of a stream of bytes, and what comes out for bytes that are wrong."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from griffin_lm.text import StreamDecoder
from griffin_lm.text.stream import LeadingSpace, Surface


def streamed(surfaces: list[Surface], leading: LeadingSpace = LeadingSpace.KEEP) -> list[str]:
    """The pieces that come out as each surface goes in, and what `finish` gives."""
    decoder = StreamDecoder(surfaces.__getitem__, leading)
    return [decoder.feed(token) for token in range(len(surfaces))] + [decoder.finish()]


def test_a_character_comes_out_with_its_last_byte() -> None:
    assert streamed([b"\xe6", b"\x97", b"\xa5", b"A"]) == ["", "", "日", "A", ""]


def test_a_wrong_byte_comes_out_at_once_and_never_stalls_the_stream() -> None:
    assert streamed([b"\xff", b"\x80", b"A"]) == ["\ufffd", "\ufffd", "A", ""]


def test_an_unfinished_character_comes_out_as_soon_as_it_cannot_be_finished() -> None:
    assert streamed([b"\xe6", b"\x97", "text"]) == ["", "", "\ufffdtext", ""]
    assert streamed([b"\xe6", b"\xe6", b"\x97", b"\xa5"]) == ["", "\ufffd", "", "日", ""]


def test_finish_gives_what_is_left_and_then_nothing() -> None:
    decoder = StreamDecoder([b"a\xf0\x9f"].__getitem__, LeadingSpace.KEEP)
    assert decoder.feed(0) == "a"
    assert [decoder.finish(), decoder.finish()] == ["\ufffd", ""]


def test_ids_without_text_do_not_part_the_bytes_of_a_character() -> None:
    assert streamed([b"\xc3", None, b"\xa9"]) == ["", "", "é", ""]


@pytest.mark.parametrize(
    ("leading", "expected"),
    [
        (LeadingSpace.KEEP, ["  ", " a", " b", ""]),
        (LeadingSpace.DROP_ONE, [" ", " a", " b", ""]),
        (LeadingSpace.DROP_ALL, ["", "a", " b", ""]),
    ],
)
def test_spaces_at_the_start(leading: LeadingSpace, expected: list[str]) -> None:
    assert streamed(["  ", " a", " b"], leading) == expected


@given(st.binary(max_size=20))
def test_bytes_one_by_one_give_what_python_gives_for_all(data: bytes) -> None:
    pieces = streamed([bytes((byte,)) for byte in data])
    assert "".join(pieces) == data.decode(errors="replace")
