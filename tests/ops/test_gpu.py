"""Where Triton kernels serve, and which way through time the cost model takes."""

import pytest
import torch

from griffin_lm.errors import BackendUnavailable
from griffin_lm.ops import gpu
from griffin_lm.ops.backend import prefer
from griffin_lm.ops.gating import gated
from griffin_lm.ops.linear_scan.plan import CHUNKS, Plan, plan

H200 = 132


@pytest.fixture
def installed(monkeypatch):
    """As if Triton and a GPU were there."""
    monkeypatch.setattr(gpu, "missing", lambda: None)


def test_without_triton_the_reason_is_that(monkeypatch):
    monkeypatch.setattr(gpu, "find_spec", lambda _: None)
    gpu.missing.cache_clear()
    assert gpu.why_not(torch.zeros(1)) == "Triton is not installed"
    gpu.missing.cache_clear()


def test_a_tensor_on_the_cpu_is_named(installed, monkeypatch):
    monkeypatch.setattr(gpu, "INTERPRETED", False)
    assert gpu.why_not(torch.zeros(1)) == "it computes on a GPU, and a tensor is on cpu"
    assert gpu.why_not(None) is None
    with prefer("triton"), pytest.raises(BackendUnavailable, match=r"gated product.*is on cpu"):
        gated(torch.zeros(2), torch.zeros(2), "gelu")


def test_the_interpreter_serves_a_cpu_only_where_it_is_asked_for_by_name(installed, monkeypatch):
    monkeypatch.setattr(gpu, "INTERPRETED", True)
    assert gpu.why_not(torch.zeros(1)) is not None
    with prefer("triton"):
        assert gpu.why_not(torch.zeros(1)) is None
        assert gpu.why_not(torch.zeros(1, device="meta")) is not None


def test_a_token_and_many_rows_go_in_one_piece():
    for batch, steps in ((1, 1), (512, 1), (8, 4096), (32, 2048), (64, 128)):
        assert plan(batch, steps, 2560, 10, 6, H200) == Plan(steps, 1)


def test_one_long_row_goes_in_chunks_that_cover_it():
    for steps in (512, 2048, 8193, 131_072):
        way = plan(1, steps, 2560, 10, 6, H200)
        assert way.chunk in CHUNKS
        assert (way.chunks - 1) * way.chunk < steps <= way.chunks * way.chunk


def test_a_smaller_machine_is_filled_by_fewer_rows():
    assert plan(4, 2048, 2560, 10, 6, H200).chunks > 1
    assert plan(4, 2048, 2560, 10, 6, 16).chunks == 1


@pytest.mark.parametrize("number, power", ((0, 1), (1, 1), (2, 2), (3, 4), (64, 64), (65, 128)))
def test_powers_of_two(number, power):
    assert gpu.power_of_two(number) == power
