"""docs/adding-a-mixer.md, followed: its mixer takes two rows and passes the conformance tests."""

import inspect
import re
from pathlib import Path

import pytest
import torch

import griffin_lm as griffin
from griffin_lm.mixers import MIXERS
from tests.mixers import test_conformance as conformance

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "adding-a-mixer.md").read_text()
*QUOTES, WHOLE = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
REAL = (ROOT / "src" / "griffin_lm" / "mixers" / "lru.py").read_text()


@pytest.fixture
def kind(monkeypatch):
    """The page's steps: its code, its row in MIXERS, its row in the conformance test."""
    code = {}
    exec(compile(WHOLE, "docs/adding-a-mixer.md", "exec"), code)
    monkeypatch.setitem(MIXERS, "ema", code["EMA"])
    monkeypatch.setitem(conformance.SMALL, "ema", code["EMA"](width=7, conv_width=3))
    return "ema"


# With the fixtures of this module, pytest runs every conformance test on the page's mixer.
x, mixer = conformance.x, conformance.mixer
BORROWED = {
    name: test
    for name, test in vars(conformance).items()
    if name.startswith("test_") and {"kind", "mixer"} & set(inspect.signature(test).parameters)
}
globals().update(BORROWED)


def test_the_conformance_tests_were_borrowed():
    assert {"test_cutting_anywhere_changes_nothing", "test_its_state_survives_bytes"} <= set(
        BORROWED
    )
    assert len(BORROWED) >= 11


def test_a_pattern_that_names_it_builds_a_model(kind):
    settings = griffin.PRESETS["tiny-hawk"].to_dict() | {"pattern": [{"kind": kind, "width": 20}]}
    model = griffin.build(griffin.ModelConfig.from_dict(settings), seed=1)
    tokens = torch.randint(0, 96, (2, 11))
    whole, _ = model(tokens)
    left, state = model(tokens[:, :4])
    right, _ = model(tokens[:, 4:], state=state)
    torch.testing.assert_close(torch.cat([left, right], 1), whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize("quote", QUOTES)
def test_what_the_page_quotes_stands_in_the_file_to_follow(quote):
    assert quote in REAL


def test_what_the_page_names_is_there():
    for path in re.findall(r"`((?:mixers|models|training|ops|tests)/[\w/]+\.py)`", PAGE):
        if "NAME" not in path:
            found = ROOT / path if path.startswith("tests") else ROOT / "src" / "griffin_lm" / path
            assert found.exists(), path
