"""Choosing among backends."""

import pytest

from griffin_lm.errors import BackendUnavailable, ConfigError
from griffin_lm.ops.backend import Backend, always, choose, prefer, preferred

EVEN = Backend("native", lambda n: f"native {n}", lambda n: "it is odd" if n % 2 else None)
ANY = Backend("reference", lambda n: f"reference {n}", always)


def test_the_first_backend_that_can_serve_is_taken():
    assert choose("halving", (EVEN, ANY), 2)(2) == "native 2"
    assert choose("halving", (EVEN, ANY), 3)(3) == "reference 3"


def test_a_named_backend_never_falls_back():
    with prefer("native"):
        assert choose("halving", (EVEN, ANY), 2)(2) == "native 2"
        with pytest.raises(BackendUnavailable, match="can't serve halving: it is odd"):
            choose("halving", (EVEN, ANY), 3)
    with prefer("reference"):
        assert choose("halving", (EVEN, ANY), 2)(2) == "reference 2"


def test_an_operation_without_the_named_backend_uses_its_reference():
    with prefer("triton"):
        assert choose("halving", (EVEN, ANY), 2)(2) == "reference 2"


def test_the_preference_ends_with_its_block_also_after_an_error():
    with pytest.raises(RuntimeError, match="in between"), prefer("reference"):
        raise RuntimeError("in between")
    assert preferred() == "auto"


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ConfigError, match="auto, reference, native, triton"), prefer("cuda"):
        pass
