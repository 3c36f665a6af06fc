"""Contenders in processes of their own: answers, errors, deaths, memory."""

import os
import sys

import pytest

from griffin_lm.bench.cpu.child import Child, memory_of
from griffin_lm.errors import GriffinError, InputError

HERE = "tests.bench.cpu.test_child"
linux = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="memory is read in /proc, which only Linux has"
)


class Contender:
    """What runs in the child."""

    def __init__(self, start: int) -> None:
        self.total = start

    def add(self, number: int) -> int:
        self.total += number
        return self.total

    def fail(self, how: str) -> None:
        if how == "ours":
            raise InputError("not so")
        if how == "death":
            os._exit(3)
        raise KeyError("what")


def test_a_child_keeps_what_it_holds_between_questions_and_after_errors() -> None:
    with Child(HERE, {"start": 5}) as child:
        assert child.ask("add", 1) == 6
        with pytest.raises(InputError, match="not so"):
            child.ask("fail", "ours")
        with pytest.raises(GriffinError, match="KeyError: 'what'"):
            child.ask("fail", "theirs")
        assert child.ask("add", 1) == 7
        with pytest.raises(GriffinError, match=r"ended \(exit code 3\)"):
            child.ask("fail", "death")


@linux
def test_memory_is_told_by_what_backs_it() -> None:
    before = memory_of(None)
    held = bytearray(os.urandom(1 << 20) * 256)  # much, as what the process frees meanwhile counts
    grown = memory_of(None)["anonymous"] - before["anonymous"]
    assert grown > len(held) // 2 and set(before) == {"anonymous", "files", "shared"}
