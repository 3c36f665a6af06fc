"""Tests of Triton kernels in Triton's interpreter, on a CPU.

Triton reads TRITON_INTERPRET when it is imported, so these run in processes of their own:
tests/test_interpreted.py starts one for each file. In an ordinary run they are not collected,
rather than skipped: they are no tests of that process, and its summary would count them twice.
"""

import os
from collections.abc import Iterator

import numpy as np
import pytest
import torch

collect_ignore_glob = [] if os.environ.get("TRITON_INTERPRET") == "1" else ["test_*.py"]

if os.environ.get("TRITON_INTERPRET") == "1":
    from tests.interpreted.rowwise import scan_rowwise

    scan_rowwise()


@pytest.fixture(autouse=True)
def as_on_a_device() -> Iterator[None]:
    """One thread: the interpreter is a Python loop. Overflow gives inf in silence, as on a GPU."""
    torch.set_num_threads(1)
    with np.errstate(all="ignore"):
        yield
