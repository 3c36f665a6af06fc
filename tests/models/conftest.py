"""Fixtures of the model tests."""

import jaxtyping
import pytest


@pytest.fixture
def unchecked_shapes():
    """Shape annotations off, as they are for users: the model's own refusals must speak."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
