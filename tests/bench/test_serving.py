"""`griffin bench serve`: what its figures mean, what an earlier run leaves; slow: a small run."""

import json
from pathlib import Path
from typing import Any

import pytest

from griffin_lm.bench.serving import delay, page, parked, plot, reading, study
from griffin_lm.errors import GriffinError, InputError

INF = float("inf")
DELAY: dict[str, Any] = {
    "what": "token delay",
    "streams": 4,
    "tokens": 100,
    "mean_seconds": 0.001,
    "p50_at_most": 0.0005,
    "p99_at_most": 0.002,
    "share_within_target": 0.995,
}
READING: dict[str, Any] = {
    "what": "reading",
    "tokens": 1000,
    "tokens_per_s": 50.0,
    "state_bytes": 20_000,
    "growing_cache_bytes": 1 << 20,
    "memory_bytes": 200 << 20,
    "memory_low": -0.01,
    "memory_high": 0.005,
    "samples": [(0, 200 << 20), (1000, 201 << 20)],
}


def test_a_quantile_is_the_first_edge_with_so_much_below() -> None:
    counts = {0.001: 40.0, 0.002: 98.0, 0.003: 99.0, INF: 100.0}
    assert delay.at_most(counts, 0.5) == 0.002
    assert delay.at_most(counts, 0.99) == 0.003
    assert delay.at_most(counts, 0.995) == INF


def test_the_spread_of_memory_is_least_median_and_most() -> None:
    assert reading.spread([101, 100, 99, 104, 101]) == (99, 101, 104)
    with pytest.raises(GriffinError, match="read more"):
        reading.spread([100])


def test_no_two_parked_sessions_have_read_the_same() -> None:
    texts = [parked.text(number) for number in range(500)]
    assert len(set(texts)) == 500 and len({len(text) for text in texts}) > 10


def test_a_part_that_is_not_measured_again_stays(tmp_path: Path) -> None:
    options = study.Options()
    first = study.figures({"reading": [READING], "delay": [DELAY]}, options, "griffin one", {})
    (tmp_path / "serving.json").write_text(json.dumps(first))
    before = study.earlier(tmp_path / "serving.json")
    second = study.figures({"delay": [DELAY | {"tokens": 7}]}, options, "griffin two", before)
    assert list(second["parts"]) == ["delay", "reading"]
    assert [(row["part"], row["tokens"]) for row in second["rows"]] == [
        ("delay", 7),
        ("reading", 1000),
    ]
    text = page.page(second)
    assert "`griffin two`" in text and "`griffin one`" in text
    assert "| delay of a token, p99, ms, at most | 2 | <= 3 |" in text
    assert "| least and most beside it | -1.00 %, +0.50 % | ± 2 % |" in text
    assert "tokens within 3 ms: 99.50 %" in page.table(second)


def test_the_plot_is_there_where_a_text_was_read(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="draws the plot")
    options = study.Options()
    assert not plot.draw(study.figures({"delay": [DELAY]}, options, "", {}), tmp_path / "a.svg")
    figures = study.figures({"reading": [READING]}, options, "", {})
    assert plot.draw(figures, tmp_path / "a.svg") and plot.draw(figures, tmp_path / "b.svg")
    drawn = (tmp_path / "a.svg").read_text()
    assert "tokens read" in drawn and drawn == (tmp_path / "b.svg").read_text()


def test_parts_are_chosen_by_name() -> None:
    assert study.chosen("") == tuple(study.PARTS)
    assert study.chosen("reading,delay") == ("reading", "delay")
    with pytest.raises(InputError, match="parked"):
        study.chosen("park")


@pytest.mark.slow
def test_a_server_is_measured_at_small_sizes(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = study.Options(streams=3, stream_tokens=12, sessions=12, tokens=100_000)
    measured = {
        name: study.PARTS[name].measure(options, lambda *_: None)
        for name in ("delay", "parked", "reading")
    }
    figures = study.figures(measured, options, "griffin bench serve", {})
    told, kept, read = figures["rows"]
    assert 20 <= told["tokens"] <= 36 and 0 < told["mean_seconds"] < 60
    assert kept["answered"] == 12 and kept["bytes"] > 12 * 10_000
    assert read["tokens"] >= 100_000 and len(read["samples"]) > 50
    assert "a growing cache" in page.table(figures)
    assert not list(tmp_path.iterdir()), "nothing is left on the disk"
