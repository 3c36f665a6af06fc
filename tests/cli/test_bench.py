"""`griffin bench`: which words it knows, what it writes, how it exits."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from griffin_lm.bench import full_size
from griffin_lm.bench.reliability import READERS
from tests.bench import planted

linux = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="memory is limited and measured through /proc"
)


def test_an_unknown_word_is_answered_with_those_there_are(run) -> None:
    result = run("bench", "speed")
    assert result.code == 2 and "'speed'" in result.err
    assert "reliability" in result.err and "full-size" in result.err
    assert "reliability" in run("bench", "--help").out


def test_an_unknown_reader_is_answered_with_those_there_are(run) -> None:
    result = run("bench", "reliability", "--what", "config,nonsense")
    assert result.code == 1 and "'nonsense'" in result.err
    assert "fuzz (safetensors" in result.err and "tokenizer-json" in result.err


@linux
def test_a_sound_reader_gives_a_table_a_page_and_figures(run, tmp_path: Path) -> None:
    json_file = tmp_path / "figures.json"
    arguments = ("--what", "config", "--inputs", 40, "--json", json_file, "--out", tmp_path)
    result = run("bench", "reliability", *arguments)
    assert result.code == 0, result.err
    assert "| config | 40 |" in result.out
    figures = json.loads(json_file.read_text())
    assert figures == json.loads((tmp_path / "reliability.json").read_text())
    [row] = figures["rows"]
    assert (row["what"], row["reader"], row["inputs"]) == ("fuzz", "config", 40)
    assert row["failures"] == [] and row["refused"] + row["loaded"] == 40
    assert figures["machine"]["PyTorch"]
    page = (tmp_path / "reliability.md").read_text()
    assert "| config | 40 |" in page and "griffin bench reliability --what config" in page


@linux
def test_a_failure_exits_1_and_its_command_repeats_it(
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = replace(planted.planted("escape"), name="config")
    monkeypatch.setitem(READERS, "config", reader)
    arguments = ("--what", "config", "--inputs", 20, "--seed", 73, "--failures", tmp_path / "f")
    result = run("bench", "reliability", *arguments)
    assert result.code == 1 and "failures; their inputs are in" in result.err
    kept = next((tmp_path / "f").iterdir())
    command = json.loads((kept / "failure.json").read_text())["repeat"].split()
    again = run(*command[1:])
    assert command[0] == "griffin" and again.code == 1
    assert "ZeroDivisionError" in again.out and again.out.endswith("fails\n")


def test_full_size_measures_and_prints_the_page(
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(full_size, "measure", lambda out: {"out": str(out)})
    monkeypatch.setattr(full_size, "page", lambda figures: f"page of {figures['out']}")
    json_file = tmp_path / "f.json"
    result = run("bench", "full-size", "--out", tmp_path, "--json", json_file)
    assert (result.code, result.out.strip()) == (0, f"page of {tmp_path}")
    assert json.loads(json_file.read_text()) == {"out": str(tmp_path)}
