"""Kernels run on torch's threads where they are GNU's, and compute the same on their own."""

import sys
from pathlib import Path

import pytest
import torch

from griffin_lm.ops import native

pytestmark = pytest.mark.skipif(native.UNBUILT is not None, reason=str(native.UNBUILT))


def products() -> list[torch.Tensor]:
    torch.manual_seed(0)
    x, weight = torch.randn(3, 512).bfloat16(), torch.randn(999, 512).bfloat16()
    a, h0 = torch.rand(2, 300, 96), torch.randn(2, 96)
    return [native.linear_bf16(x, weight, None), native.scan(torch.randn_like(a), a, h0)]


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_whose_threads_they_are_changes_no_bit(threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        native.use_own_threads()
        own = products()
        native.use_own_threads(False)
        assert all(map(torch.equal, own, products()))
    finally:
        native.use_own_threads(False)
        torch.set_num_threads(before)


@pytest.mark.skipif(sys.platform != "linux", reason="only on Linux are torch's threads GNU's")
def test_the_libgomp_that_torch_brings_is_found() -> None:
    bundled = list((Path(torch.__file__).parent / "lib").glob("libgomp*"))
    assert native.shares_threads() or not bundled
