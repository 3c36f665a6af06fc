"""`griffin bench`: which words it knows, what it writes, how it exits."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from griffin_lm.bench import full_size
from griffin_lm.bench.reliability import READERS, Result, write_page
from griffin_lm.errors import DataError
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
    written = json.loads((tmp_path / "reliability.json").read_text())["studies"]
    assert written["fuzz"]["rows"] == figures["rows"]
    [row] = figures["rows"]
    assert (row["what"], row["reader"], row["inputs"]) == ("fuzz", "config", 40)
    assert row["failures"] == [] and row["refused"] + row["loaded"] == 40
    assert figures["machine"]["PyTorch"]
    page = (tmp_path / "reliability.md").read_text()
    assert "| config | 40 |" in page and "griffin bench reliability --what config" in page


def test_a_page_keeps_the_studies_that_are_not_run_again(tmp_path: Path) -> None:
    for name, failures in (("serve", 1), ("fuzz", 0), ("serve", 2)):
        result = Result([{"what": name}], f"## {name} {failures}\n", failures)
        write_page(tmp_path, {name: result}, f"the command of {name}", {"cores": failures})
    page = (tmp_path / "reliability.md").read_text()
    assert page.index("## fuzz 0") < page.index("the command of fuzz") < page.index("## serve 2")
    assert "serve 1" not in page and "Machine: cores 2." in page
    (tmp_path / "reliability.json").write_text("{}")
    with pytest.raises(DataError, match="not what --out writes"):
        write_page(tmp_path, {}, "", {})


@linux
def test_a_failure_exits_1_and_its_command_repeats_it(
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = replace(planted.planted("escape"), name="config")
    monkeypatch.setitem(READERS, "config", reader)
    arguments = ("--what", "config", "--inputs", 20, "--seed", 73, "--failures", tmp_path / "f")
    result = run("bench", "reliability", *arguments)
    assert result.code == 1 and "failures; inputs that failed are in" in result.err
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


def test_quality_tells_what_rounding_costs(run, tmp_path: Path) -> None:
    result = run("bench", "quality", "--limit", 200, "--json", tmp_path / "json")
    assert result.code == 0, result.err
    rows = json.loads((tmp_path / "json").read_text())["rows"]
    rounded = "bf16, keys and values int8"
    kinds = ["bf16", "fp32", rounded, "int8", "int4", "int4, calibrated"]
    assert [row["weights"] for row in rows] == kinds
    assert all(row["tokens"] == 200 and 0.8 < row["over_bf16"] < 1.25 for row in rows)
    assert rows[0]["over_bf16"] == 1


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's RssAnon")
def test_memory_and_counter_write_rows_that_add_up(run, tmp_path: Path) -> None:
    file = tmp_path / "json"
    tiny = ("--weights", "int8", "--threads", 1, "--json", file)
    read = ("bench", "memory", "--model", "tiny-griffin", "--tokens", 300)
    result = run(*read, *tiny)
    assert result.code == 0, result.err
    result = run(*read, *tiny, "--append")
    assert result.code == 0, result.err
    (row,) = json.loads(file.read_text())["rows"]  # measured again, it is replaced
    assert row["tokens"] == 300 and row["peak"] >= row["loaded"] > row["weights_bytes"] > 0
    assert row["over_weights"] == row["peak"] - row["weights_bytes"]
    result = run("bench", "counter", "--model", "tiny-griffin", "--rounds", 3, *tiny)
    assert result.code == 0, result.err
    (row,) = json.loads(file.read_text())["rows"]
    assert row["far"] == 1_000_000 and row["ratio"] > 0


def test_serving_is_measured_in_rounds(run, tmp_path: Path) -> None:
    sizes = ("--preset", "tiny-griffin", "--weights", "fp32", "--streams", 2, "--context", 9)
    options = ("--tokens", 1, "--rounds", 2, "--threads", 1, "--out", tmp_path)
    result = run("bench", "serve", "--only", "engine", *sizes, *options)
    assert result.code == 0, result.err
    assert "engine over the bare loop" in result.out
    figures = json.loads((tmp_path / "serving.json").read_text())
    assert figures["parts"].keys() == {"engine"}
    by_name = {row["what"]: row for row in figures["rows"]}
    assert by_name["decode, engine"]["fraction_of_bare"] > 0
    assert all(len(row["rounds"]) == 2 for row in figures["rows"] if "rounds" in row)
    assert "| state saved, ms |" in (tmp_path / "serving.md").read_text()


def test_an_unknown_part_of_serving_is_answered_with_those_there_are(run) -> None:
    result = run("bench", "serve", "--only", "engine,speed")
    assert result.code == 1 and "'speed'" in result.err and "parked" in result.err
