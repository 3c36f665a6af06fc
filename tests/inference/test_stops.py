"""Stop strings in text that comes in pieces: whatever the pieces, the result is the same."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from griffin_lm.inference.stops import StopWatch

texts = st.text(alphabet="ab", max_size=14)
stops = st.lists(st.text(alphabet="ab", min_size=1, max_size=4), max_size=3)


def pieces_of(text: str, cuts: list[int]) -> list[str]:
    edges = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    return [text[a:b] for a, b in pairwise(edges)]


@given(texts, stops, st.lists(st.integers(0, 20), max_size=5))
def test_any_pieces_give_the_text_before_the_first_complete_stop(text, stops, cuts) -> None:
    watch = StopWatch(stops)
    shown = [watch.add(piece) for piece in pieces_of(text, cuts)]
    stopped = watch.stopped
    shown.append(watch.finish())
    ends = [(end, -len(s)) for s in stops for end in range(len(text) + 1) if text[:end].endswith(s)]
    expected = text[: min(ends)[0] + min(ends)[1]] if ends else text
    assert "".join(shown) == watch.text == expected
    assert stopped == bool(ends)


@given(texts, stops)
def test_nothing_is_held_back_that_can_no_longer_become_a_stop(text, stops) -> None:
    watch = StopWatch(stops)
    for character in text:
        watch.add(character)
    held = watch.text[watch.shown :]
    assert watch.stopped or not held or any(stop.startswith(held) for stop in stops)


def test_without_stop_strings_everything_is_shown_at_once() -> None:
    watch = StopWatch(())
    assert [watch.add("some "), watch.add("text"), watch.finish()] == ["some ", "text", ""]
