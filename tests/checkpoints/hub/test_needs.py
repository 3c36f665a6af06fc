"""Before a download: the figures, what is refused, what is warned of, and what would fit."""

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import griffin_lm as griffin
from griffin_lm.checkpoints.hub import (
    AtHand,
    HubId,
    Need,
    ProgressLine,
    machine,
    memory_at_hand,
    needs,
    preflight,
    snapshot,
)
from griffin_lm.errors import HubError
from griffin_lm.models.sizes import memory, quantised_bytes
from tests.checkpoints.hub.conftest import ID, Told
from tests.checkpoints.hub.server import Hub, Repo

BFLOAT16 = Need(torch.bfloat16, torch.device("cpu"))
FLOAT32 = Need(torch.float32, torch.device("cpu"))
NINE = griffin.PRESETS["recurrentgemma-9b"]
GB = 10**9


@pytest.fixture
def at_hand(monkeypatch: pytest.MonkeyPatch):
    """Makes the machine one of so many bytes of memory, free and in all."""

    def have(free: int, total: int) -> None:
        monkeypatch.setattr(needs, "memory_at_hand", lambda device: AtHand(free, total))

    return have


def nine(need: Need = BFLOAT16, **options: Any) -> needs.Preflight:
    stored = 17_159_954_432
    given: dict[str, Any] = {"total": stored, "here": 0, "config": NINE, "stored": stored}
    return needs.plan("a/nine", "c" * 40, "4 files", cache=Path("/"), need=need, **given | options)


def test_the_figures_are_those_of_the_model_and_the_machine(at_hand) -> None:
    at_hand(40 * GB, 64 * GB)
    plan = nine(here=3 * GB)
    assert plan.fetch == plan.total - 3 * GB
    assert plan.weights == 17_159_954_432 and plan.state == 26_230_801
    assert plan.peak == memory(NINE, torch.bfloat16).peak
    assert (plan.memory, plan.memory_total) == (40 * GB, 64 * GB)
    assert plan.disk == pytest.approx(shutil.disk_usage("/").free, rel=0.2)
    assert plan.quantised == {kind: quantised_bytes(NINE, kind) for kind in ("int8", "int4")}
    assert plan.fits_memory and plan.warning() is None
    text = "\n".join(plan.lines())
    for words in ("to fetch 14.16 GB, 3.00 GB of 17.16 GB here", "free 40.00 GB of 64.00 GB",
                  "bfloat16", "weights 17.16 GB", "state 26.23 MB"):  # fmt: skip
        assert words in text, words


def test_the_figures_go_into_json(at_hand) -> None:
    at_hand(40 * GB, 64 * GB)
    plain = nine().to_dict()
    assert plain["weights"] == 17_159_954_432 and plain["cache"] == "/"


def test_what_never_fits_is_refused_and_can_be_had_anyway(at_hand, monkeypatch) -> None:
    at_hand(7 * GB, 8 * GB)
    plan = nine()
    with pytest.raises(HubError) as refused:
        plan.check()
    for words in ("17.16 GB", "8.00 GB in all", "no weights were fetched", "--quantize", "int4",
                  "GRIFFIN_SKIP_MEMORY_CHECK=1"):  # fmt: skip
        assert words in str(refused.value), words
    assert "int8" not in str(refused.value), "8.6 GB do not fit either"
    monkeypatch.setenv("GRIFFIN_SKIP_MEMORY_CHECK", "1")
    plan.check()


def test_what_does_not_fit_just_now_is_a_warning(at_hand) -> None:
    at_hand(10 * GB, 64 * GB)
    plan = nine()
    plan.check()
    told = plan.warning() or ""
    assert "10.00 GB are free" in told and "int8" in told and "int4" in told
    assert "--quantize fits with int8" in told


def test_half_the_bytes_are_offered_where_they_fit(at_hand) -> None:
    at_hand(20 * GB, 64 * GB)
    assert "--dtype bfloat16 fits" in (nine(FLOAT32).warning() or "")
    assert "--dtype bfloat16" not in (nine(BFLOAT16).warning() or "")


def test_nothing_fits_a_very_small_machine(at_hand) -> None:
    at_hand(1 * GB, 2 * GB)
    assert "a smaller model" in nine().smaller()


def test_without_a_config_the_files_tell_the_size(at_hand) -> None:
    at_hand(40 * GB, 64 * GB)
    plan = nine(FLOAT32, config=None)
    assert plan.weights == 2 * plan.total and plan.quantised is None


def test_what_is_not_loaded_needs_no_memory() -> None:
    plan = needs.plan("a/b", "c" * 40, "", 10, 0, Path("/"), NINE, 10, None)
    assert plan.fits_memory and plan.dtype is None and len(plan.lines()) == 2
    plan.check()


def test_a_full_disk_is_refused_before_a_byte_is_fetched(
    repo: Repo, hub: Hub, monkeypatch, told: Told
) -> None:
    monkeypatch.setattr(needs, "disk_at_hand", lambda folder: 1_000)
    with pytest.raises(HubError) as refused:
        snapshot(HubId(ID), need=FLOAT32, watch=told.watch)
    for words in ("1.00 kB are free", "nothing was fetched", "HF_HOME"):
        assert words in str(refused.value), words
    assert [request.path for request in hub.requests] == [f"/api/models/{ID}/revision/main"]


def test_a_model_that_never_fits_is_refused_before_its_weights(
    repo: Repo, hub: Hub, at_hand, told: Told
) -> None:
    at_hand(1_000, 2_000)
    with pytest.raises(HubError, match="no weights were fetched"):
        snapshot(HubId(ID), need=FLOAT32, watch=told.watch)
    assert len(told.plans) == 1, "the figures are shown also where it is refused"
    assert not any(hub.of(name) for name in repo.files if name.endswith(".safetensors"))


def test_too_little_free_memory_is_said_and_the_download_goes_on(
    repo: Repo, at_hand, told: Told
) -> None:
    at_hand(1_000, 64 * GB)
    assert snapshot(HubId(ID), need=FLOAT32, watch=told.watch).path.is_dir()
    (notice,) = told.notices
    assert "are free on cpu" in notice


def test_what_is_here_already_is_not_weighed_again(repo: Repo, at_hand, told: Told) -> None:
    snapshot(HubId(ID))
    at_hand(1_000, 2_000)
    assert snapshot(HubId(ID), need=FLOAT32, watch=told.watch).path.is_dir()
    assert not told.plans and not told.notices


def test_the_figures_can_be_asked_for_without_a_download(repo: Repo, hub: Hub, model) -> None:
    plan = preflight(HubId(ID), FLOAT32)
    assert plan.weights == sum(p.numel() * 4 for p in model.parameters())
    assert plan.fetch > 0 and plan.commit == repo.commit
    assert not any(hub.of(name) for name in repo.files if name.endswith(".safetensors"))


def test_the_machine_has_memory_and_disk(tmp_path: Path) -> None:
    found = memory_at_hand("cpu")
    assert 0 < found.free <= found.total
    free = shutil.disk_usage(tmp_path).free
    assert machine.disk_at_hand(tmp_path / "not" / "yet") == pytest.approx(free, rel=0.1)


def test_a_container_has_what_its_limit_leaves(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    whole = memory_at_hand("cpu").total
    (tmp_path / "memory.max").write_text("3000000\n")
    (tmp_path / "memory.current").write_text("2000000\n")
    (tmp_path / "memory.stat").write_text("anon 900000\ninactive_file 500000\n")
    assert memory_at_hand("cpu") == AtHand(1_500_000, 3_000_000)
    (tmp_path / "memory.max").write_text("max\n")
    assert memory_at_hand("cpu").total == whole


def test_the_line_of_progress_tells_bytes_rate_and_time_left() -> None:
    line = ProgressLine()
    line._begun = (100.0, 500 * 10**6)
    text = line.line(110.0, 1_500 * 10**6, 17 * 10**9)
    assert text == "downloading 1.50 GB of 17.00 GB, 100.00 MB/s, 02:35 left"
    assert line.line(110.0, 501 * 10**6, 17 * 10**9).endswith("45:49:50 left")
    assert line.line(100.0, 500 * 10**6, 17 * 10**9) == "downloading 500.00 MB of 17.00 GB"


def test_the_line_is_for_terminals_and_is_cleared_at_the_end(monkeypatch, capsys) -> None:
    line = ProgressLine()
    line(10, 100)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    line(10, 100)
    line(100, 100)
    shown = capsys.readouterr().err
    assert shown.startswith("\rdownloading 10 B of 100 B") and shown.endswith("\r\x1b[K")
