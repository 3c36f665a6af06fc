"""Where Triton kernels serve, and which way through time the cost model takes."""

import ast
from pathlib import Path

import pytest
import torch

from griffin_lm import ops
from griffin_lm.errors import BackendUnavailable
from griffin_lm.ops import gpu
from griffin_lm.ops.backend import prefer
from griffin_lm.ops.gating import gated
from griffin_lm.ops.linear_scan.plan import CHUNKS, Plan, plan

H200 = 132
HERE = Path(__file__).parent


def kernels():
    """(folder, name) of each kernel that is launched: a jitted function that returns nothing."""
    found = []
    for path in sorted(Path(ops.__file__).parent.glob("*/kernels.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                jitted = any("jit" in ast.unparse(each) for each in node.decorator_list)
                if jitted and node.returns is not None and ast.unparse(node.returns) == "None":
                    found.append((path.parent.name, node.name))
    return found


def test_every_kernel_is_compiled_for_hopper_and_its_operation_interpreted():
    assert len(kernels()) >= 26, "the kernels were not found"
    compiled = (HERE / "test_triton_compiles.py").read_text()
    interpreted = [path.read_text() for path in (HERE.parent / "interpreted").glob("test_*.py")]
    for folder, name in kernels():
        assert f'"{name}"' in compiled, f"{folder}/kernels.py: {name} is compiled by no test"
        used = f"griffin_lm.ops.{folder}"
        assert any(used in text for text in interpreted), f"{folder}: no test in the interpreter"


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
