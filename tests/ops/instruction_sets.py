"""The compiled kernels under every instruction set that this machine has."""

from collections.abc import Iterator

import pytest

from griffin_lm.errors import BackendUnavailable
from griffin_lm.ops import native

NAMES = ("portable", "avx2", "avx512", "amx")


@pytest.fixture(params=NAMES)
def instruction_set(request) -> Iterator[str]:
    """Runs the test once for each; skipped where this machine or build has none."""
    try:
        native.use(request.param)
    except BackendUnavailable as error:
        pytest.skip(str(error))
    yield request.param
    native.use()
