"""A vocabulary and small files."""

import pytest

from griffin_lm.inference.loading import BUNDLED
from griffin_lm.text import Tokenizer, load_tokenizer


@pytest.fixture(scope="session")
def vocabulary() -> Tokenizer:
    """The bundled model's: BOS, EOS, and markers of turns."""
    return load_tokenizer(BUNDLED["fledgling"])
