"""Prose around what is planted: some tokens before it, and many until it is asked for."""

from collections.abc import Sequence

import numpy as np

from ..errors import DataError

LEAD = 32  # tokens of prose before what is planted


def long_texts(prose: Sequence[np.ndarray], longest: int) -> list[np.ndarray]:
    """The texts that rows of LEAD + longest tokens are cut from.

    Those that are so long; where none is, all of them as one text, in their order and from the
    first one again after the last. Raises DataError where they are too short together.
    """
    needed = LEAD + longest + 1
    if texts := [text for text in prose if len(text) > needed]:
        return texts
    if sum(len(text) for text in prose) <= needed:
        raise DataError(f"the texts are not {needed} tokens long together; ask shorter distances")
    joined = np.concatenate(list(prose))
    return [np.concatenate([joined, joined[:needed]])]


def cut(
    text: np.ndarray, longest: int, random: np.random.Generator
) -> tuple[list[int], np.ndarray]:
    """(LEAD tokens, the `longest` tokens after them) from a random place of a text."""
    begin = int(random.integers(len(text) - longest - LEAD))
    after = begin + LEAD
    return text[begin:after].tolist(), text[after : after + longest]
