"""`griffin verify`: the report, its files, and the exit status that a script would look at."""

import json
from pathlib import Path

import pytest


def test_the_bundled_model_passes(run, tmp_path: Path) -> None:
    result = run("verify", "fledgling", "--json", tmp_path / "json", "--dtype", "float32")
    assert result.code == 0, result.out + result.err
    assert result.out.startswith("# griffin verify: fledgling\n\n**PASS: ")
    assert "| command | griffin verify fledgling --json " in result.out
    figures = json.loads((tmp_path / "json").read_text())
    assert figures["passed"] is True
    assert figures["parts"] and sum(figures["parts"].values()) == 1_174_656
    lines = [line for section in figures["sections"] for line in section["lines"]]
    assert {line["result"] for line in lines} <= {"PASS", "info", "not done"}
    assert [file["name"] for file in figures["files"]] == [
        "config.json",
        "model.safetensors",
        "tokenizer.model",
    ]


def test_a_line_that_fails_makes_the_exit_status_1(run, checkpoint, tmp_path: Path) -> None:
    page = tmp_path / "report.md"
    result = run("verify", checkpoint, "--out", page, "--dtype", "float32")
    assert result.code == 1, "random weights find shuffled words no worse"
    assert result.out.startswith("FAIL: ")
    assert "| shuffled words are worse | **FAIL** |" in page.read_text()


def test_a_damaged_checkpoint_is_an_error_without_a_report(run, checkpoint, tmp_path: Path) -> None:
    for file in checkpoint.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = tmp_path / "model.safetensors"
    raw = bytearray(weights.read_bytes())
    raw[-10] ^= 1
    weights.write_bytes(raw)
    result = run("verify", tmp_path)
    assert result.code == 1
    assert result.out == ""
    assert "damaged" in result.err and "Traceback" not in result.err


def test_random_takes_a_preset_and_nothing_else(run) -> None:
    result = run("verify", "no-such-preset", "--random")
    assert result.code == 1 and "no preset" in result.err


@pytest.mark.parametrize("option", [["--quantize", "int4"], ["--kernels", "no-such"]], ids=" ".join)
def test_what_cannot_be_verified_is_refused(run, checkpoint, option: list[str]) -> None:
    result = run("verify", checkpoint, *option)
    assert result.code == 1 and result.out == "" and option[0].strip("-") in result.err
