"""`griffin bench decode | prefill | scan` on toys: rows, shares, appended rounds, wrong usage."""

import json
import sys
from collections import Counter
from pathlib import Path

import pytest

TOY = ("--preset", "tiny-griffin", "--rounds", 1, "--threads", 1, "--patience", 0)


def test_decode_writes_the_rows_that_are_promised_and_adds_rounds_to_them(
    run, tmp_path: Path
) -> None:
    file = tmp_path / "decode.json"
    words = ("bench", "decode", *TOY, "--weights", "int8", "--tokens", 2, "--context", "0,100")
    result = run(*words, "--batch", "1,2", "--json", file, "--profile")
    assert result.code == 0, result.err
    assert "| decode | griffin | int8 |" in result.out
    figures = json.loads(file.read_text())
    assert figures["machine"]["threads"] == 1 and figures["machine"]["kernels"]
    places = [(row["batch"], row["context"]) for row in figures["rows"]]
    assert places == [(1, 0), (2, 0), (1, 100), (2, 100)]
    for row in figures["rows"]:
        assert (row["what"], row["who"], row["weights"]) == ("decode", "griffin", "int8")
        assert row["tokens_per_s"] > 0 and row["bytes_per_token"] > 0
        share = row["tokens_per_s"] * row["bytes_per_token"] / row["limit"]["bytes_per_s"]
        assert row["fraction_of_limit"] == pytest.approx(share, rel=1e-6)
        assert row["rounds"] == 1 and row["bits_per_weight"] > 8
    parts = figures["profiles"][0]["seconds"]
    inside = sum(value for name, value in parts.items() if name != "call")
    assert inside == pytest.approx(parts["call"], rel=0.01) and parts["linear: mlp"] > 0

    words = ("bench", "decode", *TOY, "--weights", "int8", "--tokens", 2, "--context", "0")
    result = run(*words, "--batch", "1", "--json", file, "--append")
    assert result.code == 0, result.err
    added = json.loads(file.read_text())  # rows count only rounds that nobody disturbed
    places = Counter((one["batch"], one["context"]) for one in added["measured"])
    assert places == {(1, 0): 2, (2, 0): 1, (1, 100): 1, (2, 100): 1}
    assert len(added["rows"]) == 4


def test_prefill_measures_the_recurrence_beside_the_prompt(run, tmp_path: Path) -> None:
    file = tmp_path / "prefill.json"
    words = ("bench", "prefill", *TOY, "--weights", "bf16", "--length", "16", "--json", file)
    assert run(*words).code == 0
    prompt, recurrence = json.loads(file.read_text())["rows"]
    assert (prompt["what"], recurrence["what"]) == ("prefill", "rg_lru in a prefill")
    assert prompt["limit"]["is"].startswith("matrix rate, ")
    assert recurrence["tokens_per_s"] > prompt["tokens_per_s"]


def test_scan_measures_both_directions_beside_copying(run, tmp_path: Path) -> None:
    file = tmp_path / "scan.json"
    words = ("bench", "scan", "--steps", 64, "--width", 32, "--rounds", 1, "--threads", 1)
    words = (*words, "--patience", 0)
    assert run(*words, "--json", file).code == 0
    rows = json.loads(file.read_text())["rows"]
    assert {(row["what"], row["arrays"]) for row in rows} == {
        *(("scan forward", 3), ("scan backward", 5)),
        *(("rg_lru forward", 4), ("rg_lru backward", 8)),
    }
    assert {row["who"] for row in rows} == {"griffin", "two-level reference", "python loop"}
    assert all(row["limit"]["is"] == "copy bandwidth" for row in rows)


def test_a_missing_peer_is_one_clear_line(run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    result = run("bench", "decode", *TOY, "--peers")
    assert result.code == 1 and "pip install 'griffin-lm[peers]'" in result.err
    assert "Traceback" not in result.err


def test_wrong_usage_is_explained(run, tmp_path: Path) -> None:
    result = run("bench", "decode", "--batch", "1,two")
    assert result.code == 2 and "'1,two' is no list of whole numbers" in result.err
    assert run("bench", "prefill", "--weights", "int3").code == 1
    broken = tmp_path / "x.json"
    broken.write_text("{")
    words = ("bench", "scan", "--steps", 8, "--width", 8, "--rounds", 1, "--patience", 0)
    words = (*words, "--json", broken)
    result = run(*words, "--append")
    assert result.code == 1 and "is not what --json writes" in result.err
