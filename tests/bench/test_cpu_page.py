"""The page of speed on a CPU: targets, what was not measured, what was disturbed, the plot."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from griffin_lm.bench import cpu_page
from griffin_lm.bench.cpu import plot
from griffin_lm.bench.cpu.targets import TARGETS
from griffin_lm.errors import DataError, MissingExtra

RESULTS = Path(__file__).parents[2] / "docs" / "results"
MACHINE = {"processor": "a fast one", "threads": 2}


def row(who: str, context: int, speed: float, **more: Any) -> dict[str, Any]:
    return {
        **{"what": "decode", "who": who, "weights": "bf16", "batch": 1, "context": context},
        **{"tokens_per_s": speed, "fraction_of_limit": 0.91, "bits_per_weight": 16.0},
        "limit": {"is": "read bandwidth", "bytes_per_s": 1e10},
        **more,
    }


def one(who: str, context: int, seconds: float, others: float = 0.0) -> dict[str, Any]:
    facts = {"what": "decode", "who": who, "weights": "bf16", "batch": 1, "context": context}
    return {**facts, "round": "a/0", "units": 1, "seconds": seconds, "others": others}


def written(folder: Path, name: str, **figures: Any) -> None:
    content = {"machine": MACHINE, "commands": ["griffin bench x"]} | figures
    (folder / f"{name}.json").write_text(json.dumps(content))


def lines(text: str, start: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(f"| {start}")]


def test_the_page_in_the_docs_is_made_of_the_figures_beside_it() -> None:
    text = (RESULTS / "cpu.md").read_text(encoding="utf-8")
    assert text == cpu_page.page(RESULTS / "cpu"), "run: python -m griffin_lm.bench.cpu_page"


def test_what_was_not_measured_is_said_of_every_target(tmp_path: Path) -> None:
    text = cpu_page.page(tmp_path)
    assert text.count("not measured") == len(TARGETS)
    for command in cpu_page.COMMANDS.values():
        assert f"Not run yet: `{command}`." in text


def test_targets_are_held_against_rows_and_ratios_within_rounds(tmp_path: Path) -> None:
    measured = [one("griffin", 0, 1.0), one("llama.cpp", 0, 0.5)]
    rows = [row("griffin", 0, 5.0), row("griffin", 32768, 5.0), row("llama.cpp", 0, 10.0)]
    written(tmp_path, "decode", rows=rows, measured=measured)
    (tmp_path / "why.json").write_text(
        json.dumps({"the same, empty context, bf16, llama.cpp BF16": "It is the barrier."})
    )
    text = cpu_page.page(tmp_path)
    [share] = lines(text, "decode, batch 1, bf16")
    assert share.endswith("| 0.90 | 0.95 | 0.91 | reached |")
    [ratio] = lines(text, "the same, empty context, bf16")
    assert ratio.endswith("| 1.00 | 1.00 | 0.50 | missed |")
    assert "- the same, empty context, bf16, llama.cpp BF16: It is the barrier." in text
    assert "Made by `griffin bench x`. Machine: processor a fast one, threads 2." in text


def test_what_was_only_measured_among_other_work_says_so(tmp_path: Path) -> None:
    measured = [one("griffin", 0, 1.0, 0.4), one("llama.cpp", 0, 0.5, 0.0)]
    rows = [row("griffin", 32768, 5.0, disturbed=0.4)]
    written(tmp_path, "decode", rows=rows, measured=measured)
    text = cpu_page.page(tmp_path)
    assert lines(text, "decode, batch 1, bf16")[0].endswith("reached, busy |")
    assert lines(text, "the same, empty context, bf16")[0].endswith("missed, busy |")
    assert "0.91 of read bandwidth (busy: 40%)" in text


def test_a_target_that_bounds_from_above_is_reached_below_it(tmp_path: Path) -> None:
    rows = [
        {"what": "quality", "weights": "int8", "over_bf16": 1.001},
        {"what": "quality", "weights": "int4", "over_bf16": 1.05},
    ]
    written(tmp_path, "quality", rows=rows)
    text = cpu_page.page(tmp_path)
    assert lines(text, "perplexity of fledgling, int8")[0].endswith(
        "≤ 1.0030 |  | 1.0010 | reached |"
    )
    assert lines(text, "perplexity of fledgling, int4")[0].endswith("| 1.0500 | missed |")


def test_figures_that_are_none_are_named(tmp_path: Path) -> None:
    (tmp_path / "scan.json").write_text("{}")
    with pytest.raises(DataError, match=r"scan\.json is not what 'griffin bench scan"):
        cpu_page.page(tmp_path)


def test_the_plot_has_a_line_for_whoever_was_measured_at_two_contexts(tmp_path: Path) -> None:
    rows = [row("griffin", 0, 5.0), row("griffin", 32768, 5.0), row("llama.cpp", 0, 9.0)]
    figures = {"rows": rows}
    assert plot.curves(figures) == {("griffin", "bf16"): [(0, 5.0), (32768, 5.0)]}
    assert not plot.draw({"rows": []}, tmp_path / "x.svg") and not list(tmp_path.iterdir())


def test_the_plot_is_an_svg_and_the_same_each_time(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="draws the plot; the extra `plots`, not in `dev`")
    figures = {"rows": [row("griffin", 0, 5.0), row("griffin", 32768, 5.0)]}
    files = [tmp_path / name for name in ("a.svg", "b.svg")]
    assert all(plot.draw(figures, file) for file in files)
    assert files[0].read_text() == files[1].read_text()
    assert "griffin, bf16" in files[0].read_text() and files[0].stat().st_size < 50_000


def test_without_matplotlib_the_page_is_written_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpu").mkdir()
    rows = [row("griffin", 0, 5.0), row("griffin", 32768, 5.0)]
    written(tmp_path / "cpu", "decode", rows=rows, measured=[])
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtra, match="plots"):
        plot.draw({"rows": rows}, tmp_path / "x.svg")
    cpu_page.main(tmp_path)
    assert "griffin-lm[plots]" in capsys.readouterr().err
    assert (tmp_path / "cpu.md").read_text() == cpu_page.page(tmp_path / "cpu")
    with pytest.raises(SystemExit, match="run this from the repository"):
        cpu_page.main(tmp_path / "missing")
