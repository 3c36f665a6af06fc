"""The study `length`: time and bytes against what was read."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import griffin_lm as griffin
from griffin_lm.studies import length, stopwatch
from griffin_lm.studies.architectures import sized
from griffin_lm.studies.compare import compare
from griffin_lm.studies.filled import state_after, state_bytes
from griffin_lm.studies.grid import plain
from griffin_lm.studies.study import Cell, Place

TINY = length.SCALES["tiny"]
PLACE = Place(torch.device("cpu"), None, lambda line: None)


@pytest.mark.parametrize("name", ["griffin", "mqa", "mha", "mamba"])
def test_a_filled_state_is_that_of_a_text_read(name: str) -> None:
    model = griffin.build(sized(name, TINY.shape))
    _, read = model(torch.randint(TINY.shape.vocab, (2, 300)), logits=None)
    filled = state_after(model, 2, 300, 0)
    assert filled.nbytes == read.nbytes == 2 * state_bytes(model, 300) + _counters(model)
    assert filled.tokens.tolist() == [300, 300] and filled.position.tolist() == [300, 300]
    for ours, theirs in zip(filled.layers, read.layers, strict=True):
        assert [t.shape for t in ours] == [t.shape for t in theirs]
    logits, after = model(torch.zeros(2, 1, dtype=torch.int64), state=filled, logits="last")
    assert logits is not None and logits.isfinite().all() and after.tokens.tolist() == [301, 301]


def _counters(model: griffin.Griffin) -> int:
    """Counters of the rows are counted once for each by state_bytes."""
    one, two = model.empty_state(1), model.empty_state(2)
    return two.nbytes - 2 * one.nbytes


def test_room_for_the_steps_is_made_before_they_are_timed() -> None:
    model = griffin.build(sized("mqa", TINY.shape))
    state = state_after(model, 1, 255, 3)
    before = state.nbytes
    for _ in range(3):
        _, state = model(torch.zeros(1, 1, dtype=torch.int64), state=state, donate=True)
    assert state.nbytes == before


def test_where_memory_ends_it_is_said_and_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopwatch, "_free", lambda device: 10_000)
    cells = {cell.name: cell for cell in length.plan(TINY, {})}
    found = length.measure(TINY, cells["decode-0000512"], PLACE)
    assert "GiB are free" in found["mqa"]["ended"] and found["mqa"]["state_bytes"] > 10_000
    assert "ended" in length.measure(TINY, cells["sample-0000064"], PLACE)["mqa"]


def test_a_sampled_batch_is_the_largest_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    model = griffin.build(sized("mqa", TINY.shape), dtype=torch.float32)
    weights = sum(p.nbytes for p in model.parameters())
    room = weights + int(1.5 * state_bytes(model, 128))
    monkeypatch.setattr(stopwatch, "_free", lambda device: room)
    cell = next(c for c in length.plan(TINY, {}) if c.name == "sample-0000064")
    found = length.measure(
        TINY, Cell(cell.name, {**cell.settings, "architectures": ["mqa"]}), PLACE
    )
    assert found["mqa"]["rows"] == 1 and found["mqa"]["limited_by"] == "budget"


def test_the_tiny_scale_gives_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopwatch, "_READ", 1 << 16)
    found = compare("length", "tiny", tmp_path, PLACE, "griffin compare length")
    rows = found["cells"]["decode-0000512"]["result"]
    assert (
        rows["mqa"]["state_bytes"]
        > found["cells"]["decode-0000064"]["result"]["mqa"]["state_bytes"]
    )
    assert (
        rows["griffin"]["state_bytes"]
        == (found["cells"]["decode-0000064"]["result"]["griffin"]["state_bytes"])
    )
    assert rows["mqa"]["least_ms"] > 0 and rows["mqa"]["ms_low"] <= rows["mqa"]["ms"]
    page = (tmp_path / "length.md").read_text()
    assert "| 512 |" in page and "- cpu: not run yet." in page
    assert (tmp_path / "length.svg").stat().st_size > 1000


def test_the_readme_shows_what_was_measured() -> None:
    root = Path(__file__).parents[2]
    cells = json.loads((root / "docs/results/compare/length.json").read_text())["cells"]
    screen = (root / "README.md").read_text().split("<!-- fledgling-card -->")[0]
    number = r"([\d,.]+)"
    rows = re.findall(rf"^\| {' . '.join([number] * 5)} \|$".replace(" . ", r" \| "), screen, re.M)
    assert len(rows) == 4
    for tokens, *shown in rows:
        figures = cells[f"decode-{int(tokens.replace(',', '')):07}"]["result"]
        names = ("griffin", "hawk", "mqa", "llama")
        assert shown == [f"{figures[name]['ms']:.1f}" for name in names]
        assert round(figures["griffin"]["parameters"] / 1e6) == 38


@pytest.mark.parametrize(("grown", "word"), [(1024, "held"), (1000, "refuted")])
def test_bytes_of_states_are_held_against_their_hypothesis(grown: int, word: str) -> None:
    def figures(name: str, tokens: int) -> dict[str, Any]:
        many = tokens if tokens < 1 << 20 else grown * 1024
        return {"ms": 1.0, "state_bytes": 500 if name in length.FIXED else 64 * many}

    done: dict[str, Any] = {}
    for cell in length.plan(length.SCALES["cpu"], {}):
        tokens = cell.settings["tokens"]
        if cell.settings["what"] == "decode":
            found = {name: figures(name, tokens) for name in length.ALL}
            if tokens == 1 << 20:
                found["mha"]["ended"] = "memory"
            done[cell.name] = {"settings": plain(cell.settings), "result": found}
    said = [line for line in length.verdicts(length.SCALES["cpu"], done) if line.startswith("3")]
    assert len(said) == 1 and f": {word} (the six the same" in said[0]
