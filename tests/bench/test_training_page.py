"""The page of training's results: what was measured, what was not, and that it is current."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from griffin_lm.bench import training_page, trajectories
from griffin_lm.bench.training_page import STUDIES, page, section_of
from griffin_lm.errors import DataError

RESULTS = Path(__file__).parents[2] / "docs" / "results"


def test_the_page_in_the_docs_is_made_of_the_figures_beside_it() -> None:
    written = (RESULTS / "training.md").read_text(encoding="utf-8")
    assert written == page(RESULTS / "training"), "run: python -m griffin_lm.bench.training_page"


def test_a_study_that_was_not_run_is_named_with_its_command(tmp_path: Path) -> None:
    text = page(tmp_path)
    for study in STUDIES.values():
        assert f"## {study.title}\n\nNot run yet: `{study.command}`." in text


def test_a_section_says_what_made_it_and_on_what(tmp_path: Path) -> None:
    figures = {"command": "griffin bench x", "machine": {"cores": 2}, "date": "2026-01-01"}
    (tmp_path / "kills.json").write_text(json.dumps(figures | {"rows": []}))
    text = section_of("kills", STUDIES["kills"], tmp_path)
    assert "Made by `griffin bench x` on 2026-01-01. Machine: cores 2." in text
    assert text.startswith("## Training runs killed")


def test_figures_that_are_none_are_named(tmp_path: Path) -> None:
    (tmp_path / "kills.json").write_text("{}")
    with pytest.raises(DataError, match=r"kills\.json is not what"):
        page(tmp_path)


def test_the_page_is_written_from_a_folder(tmp_path: Path, capsys) -> None:
    training_page.main(tmp_path)
    assert (tmp_path / "training.md").read_text() == page(tmp_path / "training")
    with pytest.raises(SystemExit, match="run this from the repository"):
        training_page.main(tmp_path / "missing")


def test_trajectories_that_part_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two pairs of two steps: packed as it should be, and without its documents' starts."""
    monkeypatch.setattr(trajectories, "STEPS", 2)
    pair = next(pair for pair in trajectories.pairs() if pair.name.startswith("packed"))

    def runs_on() -> list[trajectories.Batch]:
        return [b._replace(starts=torch.zeros_like(b.starts)) for b in pair.other.batches()]

    wrong = replace(pair, name="documents that run on", other=replace(pair.other, batches=runs_on))
    absent = replace(pair, name="compiled", why_not="no compiler")
    monkeypatch.setattr(trajectories, "pairs", lambda: [pair, wrong, absent])
    told: list[tuple[int, int]] = []
    figures = trajectories.measure(lambda *at: told.append(at), "griffin bench trajectories")
    assert told == [(1, 3), (2, 3), (3, 3)] and figures["moved"] > 1e-4
    assert trajectories.failures(figures) == ["documents that run on"]
    good, bad, _ = figures["rows"]
    assert good["float64"]["weights"] < 1e-11 < good["float32"]["weights"]
    assert bad["float64"]["weights"] > 1e-5 and bad["float64"]["loss"] > 1e-5
    text = trajectories.section(figures)
    assert "NOT held: documents that run on." in text and "not measured: no compiler" in text
