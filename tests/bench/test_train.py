"""`griffin bench train`: what takes part, what is counted, and the page of it."""

import json
from pathlib import Path

import pytest
import torch

from griffin_lm.bench import training_page
from griffin_lm.bench.train import Options, cases, measure, merged
from griffin_lm.bench.train.contestants import _products, build_peer
from griffin_lm.bench.train.report import section
from griffin_lm.errors import ConfigError, DataError
from griffin_lm.models.griffin import Griffin
from griffin_lm.training.speed import matmul_parameters


@pytest.fixture(scope="module")
def figures():
    """The whole at toy size, without compiling."""
    pytest.importorskip("transformers", reason="the peers are transformers' models")
    options = Options(scale="toy", peers=True, rounds=2, bf16=True, compile=False)
    return json.loads(json.dumps(measure(options, lambda _: None, rate_seconds=0.01)))


def test_a_row_has_what_was_promised(figures):
    for row in figures["rows"]:
        work = 6 * row["parameters_in_products"] * row["tokens_per_s"]
        limit = row["matrix_gflops"] * 1e9
        assert row["fraction_of_limit"] == pytest.approx(work / limit, rel=0.9, abs=2e-4)
        assert row["slowest"] <= row["tokens_per_s"] <= row["fastest"]
        assert row["matrix_dtype"] in ("fp32", "bf16") and row["rounds"] == 2


def test_everyone_asked_for_takes_part(figures):
    rows = [row for row in figures["rows"] if row["case"] == "100m"]
    assert [row["who"] for row in rows] == [
        "griffin, eager",
        "griffin, eager",
        *("transformers RecurrentGemma", "transformers Llama") * 2,
    ]
    assert [row["weights"] for row in rows] == ["fp32", "bf16", "fp32", "fp32", "bf16", "bf16"]


def test_every_length_has_the_same_tokens_a_step(figures):
    rows = [row for row in figures["rows"] if row["case"] == "lengths"]
    assert {row["batch"] * row["context"] for row in rows} == {64}
    assert {row["context"] for row in rows} == {32, 64}


def test_the_section_names_dtypes_ratios_and_parts(figures):
    page = section(figures)
    assert page.startswith("## Speed on a CPU\n")
    for words in ("GFLOP/s in ", "| transformers Llama | fp32 |", " x |", "Where a step of"):
        assert words in page
    shares = [part["seconds"] for part in figures["parts"]]
    assert shares and all("linear products" in share for share in shares)


def test_the_page_takes_the_file_as_it_is(figures, tmp_path: Path):
    (tmp_path / "speed.json").write_text(json.dumps(figures))
    study = training_page.STUDIES["speed"]
    text = training_page.section_of("speed", study, tmp_path)
    assert study.command in text and "cores" in text


def test_cases_measured_again_replace_the_older_ones(figures, tmp_path: Path):
    file = tmp_path / "speed.json"
    file.write_text(json.dumps(figures | {"command": "before"}))
    rows = [row | {"tokens_per_s": 1.0} for row in figures["rows"] if row["case"] == "lengths"]
    both = merged(file, figures | {"rows": rows, "parts": [], "command": "now"})
    assert (both["earlier"], both["command"]) == (["before"], "now")
    assert len(both["rows"]) == len(figures["rows"]) and len(both["parts"]) == 1
    assert {r["case"] for r in both["rows"] if r["tokens_per_s"] == 1.0} == {"lengths"}
    file.write_text(json.dumps(both))
    text = training_page.section_of("speed", training_page.STUDIES["speed"], tmp_path)
    assert "Made by `before`, then `now`" in text
    with pytest.raises(DataError, match="another machine"):
        merged(file, figures | {"machine": {}})


def test_peers_have_our_parameters():
    pytest.importorskip("transformers", reason="the peers are transformers' models")
    for case in cases("full", ()):
        with torch.device("meta"):
            ours = matmul_parameters(Griffin(case.model))
            for kind in case.peers:
                theirs = _products(build_peer(case.model, kind, ours))
                assert theirs == pytest.approx(ours, rel=2e-3 if kind == "Llama" else 1e-12)


def test_an_unknown_case_lists_the_known_ones():
    with pytest.raises(ConfigError, match="100m, 10m, lengths"):
        cases("full", ("1b",))
