"""The recurrence gate of a layer, stretched: which channels, by how much, and what comes of it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import griffin_lm as griffin
from griffin_lm.errors import ConfigError, DataError
from griffin_lm.inference.loading import BUNDLED
from griffin_lm.models import Griffin
from griffin_lm.training.memo import contrast
from tests.training.memo.conftest import cell_of, rows


def gates(model: Griffin, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return cell_of(model).a_gate(x)


def test_gates_of_channels_that_hold_are_stretched_from_a_point_and_no_others(model: Griffin):
    x = torch.randn(1, 50, 128)
    before = gates(model, x)
    changed = contrast.stretch_gate(model, 0, rows(2, 64, 0), rows(8, contrast.LEAD + 17, 1), 0.5)
    after = gates(model, x)
    assert 0 < len(changed) < 32 and max(changed) < 32
    point = before - (after - before) / 0.5  # after = before + 0.5 (before - point)
    assert torch.allclose(point[..., changed], point[:, :1, changed].expand(1, 50, -1), atol=1e-4)
    others = [channel for channel in range(128) if channel not in changed]
    assert torch.equal(after[..., others], before[..., others])


def test_a_gate_that_is_open_at_notes_stays_open_there(model: Griffin):
    noted = rows(8, contrast.LEAD + 17, 1)
    seen: list[torch.Tensor] = []
    hook = cell_of(model).register_forward_pre_hook(lambda cell, given: seen.append(given[0]))
    with torch.no_grad():
        model(noted, logits=None)
    hook.remove()
    before = gates(model, seen[0][:, contrast.LEAD :]).mean(0)
    changed = contrast.stretch_gate(model, 0, rows(2, 64, 0), noted, 2.0)
    after = gates(model, seen[0][:, contrast.LEAD :]).mean(0)
    widest = before.argmax(0)[None]
    assert (after.gather(0, widest) > before.gather(0, widest))[0, changed].all()


def test_a_layer_without_a_recurrence_is_refused(model: Griffin):
    with pytest.raises(ConfigError, match="layer 2"):
        contrast.stretch_gate(model, 2, rows(1, 8, 0), rows(1, contrast.LEAD + 8, 1))


def test_books_shorter_than_a_row_are_refused():
    tokenizer = griffin.load("fledgling").tokenizer
    with pytest.raises(DataError, match="2048"):
        contrast.rows_of([np.zeros(100, dtype=np.int64)], tokenizer)


def test_a_checkpoint_is_made_from_a_checkpoint_without_the_held_out_books(
    books: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    given, seen = tmp_path / "given", []
    shutil.copytree(BUNDLED["fledgling"], given)
    facts = json.loads((given / "training.json").read_text()) | {"held_out": {"kept": 1}}
    (given / "training.json").write_text(json.dumps(facts))
    monkeypatch.setattr(contrast, "LENGTH", 64)
    rows_of = contrast.rows_of
    monkeypatch.setattr(contrast, "rows_of", lambda *them: seen.append(them[0]) or rows_of(*them))
    made = contrast.hold_longer(given, books, tmp_path / "made")
    lm = griffin.load(tmp_path / "made", dtype="float32")
    assert not any("zebra" in lm.tokenizer.decode(book.tolist()) for book in seen[0])
    changed = made["gate_stretched"]["channels"]
    assert changed and json.loads((tmp_path / "made" / "training.json").read_text()) == made
    before = cell_of(griffin.load(given, dtype="float32").model).a_gate.w
    after = cell_of(lm.model).a_gate.w
    heads = {channel // 32 for channel in changed}
    assert torch.equal(before[0], after[0]) == (0 not in heads)
    assert not torch.equal(before, after) and lm.config == griffin.load(given).config
