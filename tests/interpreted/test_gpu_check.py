"""The correctness part of `make gpu-check`, here in the interpreter at tiny sizes."""

import json

import pytest
import torch

from griffin_lm.bench.gpu import kernel_checks, quantized_checks, recurrence
from griffin_lm.bench.gpu.kernel_checks import SHAPES, near_float64, same_bits
from griffin_lm.bench.gpu.limits import Limits
from griffin_lm.bench.gpu.operations import OPERATIONS
from griffin_lm.bench.gpu.run import run
from griffin_lm.ops.backend import choose


def test_all_kernels_pass_and_the_report_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OUT", str(tmp_path))
    assert run("tiny", "cpu") == 0, capsys.readouterr().out
    report = json.loads((tmp_path / "gpu-check.json").read_text())
    assert all(row["passed"] for row in report["checks"])
    for operation in OPERATIONS:
        subjects = [row["subject"] for row in report["checks"]]
        assert any(subject.startswith(operation.name) for subject in subjects)
    for kind in ("int8", "int4"):
        few = [row for row in report["checks"] if row["subject"].startswith(f"{kind} weights")]
        assert len(few) == 3 * len(quantized_checks.SIZES["tiny"])
    text = (tmp_path / "gpu-check.txt").read_text()
    assert f"{len(report['checks'])} of {len(report['checks'])} checks passed" in text


@pytest.mark.parametrize("operation", OPERATIONS, ids=[o.name for o in OPERATIONS])
def test_a_kernel_that_is_wrong_in_one_number_fails(operation, monkeypatch):
    """The check is held to notice: results of every kernel are moved a little, once each."""
    plain = kernel_checks.results

    def moved(operation, operands, kernels, dtype):
        found = plain(operation, operands, kernels, dtype)
        if kernels == "triton":
            flat = found[0].view(-1)
            flat[-1] += 1e-4 * (1 + flat.abs().max())
        return found

    monkeypatch.setattr(kernel_checks, "results", moved)
    assert not near_float64(operation, SHAPES["tiny"][0], "cpu").passed


@pytest.mark.parametrize("kind", ("int8", "int4"))
def test_a_product_of_few_bits_that_is_off_by_one_step_of_one_weight_fails(kind, monkeypatch):
    plain = quantized_checks.products

    def moved(kind, weight, bias):
        kernel, _ = plain(kind, weight, bias)
        weight = weight.clone()
        weight[0, 0] += weight[0].abs().max() / 7
        return kernel, plain(kind, weight, bias)[1]

    monkeypatch.setattr(quantized_checks, "products", moved)
    found = list(quantized_checks.quantized_checks("tiny", "cpu"))
    values = [o for o in found if o.subject == f"{kind} weights (3, 33, 17)"]
    assert not values[0].passed and not values[1].passed and values[2].passed


def test_a_run_that_differs_in_a_bit_fails(monkeypatch):
    plain, calls = kernel_checks.results, []

    def changing(*arguments):
        calls.append(1)
        found = plain(*arguments)
        found[0].view(-1)[0] *= 1 + len(calls) * 1e-6
        return found

    monkeypatch.setattr(kernel_checks, "results", changing)
    assert not same_bits(OPERATIONS[1], SHAPES["tiny"][0], "cpu").passed


def test_every_operation_that_is_checked_really_runs_on_triton(monkeypatch):
    """A list of operands that `why_not` refuses would raise: named kernels never fall back."""
    assert choose.__module__ == "griffin_lm.ops.backend"
    torch.manual_seed(0)
    for operation in OPERATIONS:
        operands = operation.operands(SHAPES["tiny"][0])
        assert kernel_checks.results(operation, operands, "triton", torch.float32)


def test_the_tables_of_the_recurrence_at_a_tiny_size(monkeypatch):
    """Peers that are not installed leave a row that says so."""
    monkeypatch.setattr(recurrence, "WIDTH", 4)
    monkeypatch.setattr(recurrence, "seconds", lambda run: run() is None or 1e-3)
    limit = Limits(bytes_per_s=1e9, flops=1e12)
    rows = list(recurrence.rg_lru_rows(limit, shapes=((2, 20),), device="cpu"))
    assert [row["what"] for row in rows] == [
        *("rg_lru forward", "rg_lru backward", "gated forward", "gated backward")
    ]
    for row, nbytes in zip(rows, (10, 20, 10, 18), strict=True):
        assert row["fraction_of_limit"] == pytest.approx(nbytes * 2 * 20 * 4 / 1e-3 / 1e9)
    rows = list(recurrence.scan_rows(shapes=((2, 20),), device="cpu"))
    assert [row["who"] for row in rows] == ["griffin", *recurrence.PEERS]
    assert all("ModuleNotFoundError" in row["failure"] for row in rows[1:])
