"""What a repository holds, without its weights: by listings, small files and headers."""

from dataclasses import replace
from pathlib import Path

import pytest

import griffin_lm as griffin
from griffin_lm.checkpoints import save_model
from griffin_lm.checkpoints.hub import HubId, snapshot
from griffin_lm.errors import ConfigError, HubError
from griffin_lm.inference.inspection import inspect
from tests.checkpoints.helpers import TINY
from tests.checkpoints.hub.conftest import ID, Told
from tests.checkpoints.hub.server import Hub, Repo


@pytest.fixture
def large(hub: Hub, tmp_path: Path) -> Repo:
    """Two files of weights, the larger of 2.5 MB."""
    model = griffin.build(replace(TINY, vocab=20_000))
    save_model(model, tmp_path / "large", "huggingface", max_shard_bytes=2_600_000)
    hub.repos["someone/large-it"] = Repo(
        {path.name: path.read_bytes() for path in (tmp_path / "large").iterdir()}
    )
    return hub.repos["someone/large-it"]


def test_a_hub_id_is_inspected_by_headers_alone(large: Repo, hub: Hub) -> None:
    figures = inspect("someone/large-it")
    count = sum(p.numel() for p in griffin.build(replace(TINY, vocab=20_000)).parameters())
    assert figures["parameters"] == count
    assert figures["files"]["dtypes"]["F32"]["bytes"] == 4 * count
    assert figures["files"]["format"] == "huggingface" and figures["path"] is None
    assert figures["hub"] == {"id": "someone/large-it", "revision": "main", "commit": large.commit}
    assert figures["instruction_tuned"] is True
    weights = [name for name in large.files if name.endswith(".safetensors")]
    assert weights
    for name in weights:
        assert figures["files"]["files"][name] == len(large.files[name])
        assert all(r.range == "bytes=0-100000" and r.sent <= 100_001 for r in hub.of(name))


def test_what_is_in_the_cache_is_inspected_there(repo: Repo, hub: Hub) -> None:
    snapshot(HubId(ID))
    hub.requests.clear()
    figures = inspect("recurrentgemma-2b-it")
    assert figures["path"] and figures["files"]["format"] == "huggingface" and not hub.requests


def test_an_alias_behind_its_licence_shows_the_preset_and_says_why(
    repo: Repo, hub: Hub, told: Told
) -> None:
    repo.gate = "login"
    figures = inspect("recurrentgemma-2b-it", watch=told.watch)
    assert figures["parameters"] == 2_682_862_080 and "files" not in figures
    assert figures["instruction_tuned"] is True
    assert "licence" in told.notices[0] and "figures of its configuration" in told.notices[0]


def test_an_id_behind_its_licence_is_an_error(repo: Repo, hub: Hub) -> None:
    repo.gate = "login"
    with pytest.raises(HubError, match="licence"):
        inspect(ID)


def test_offline_an_alias_shows_the_preset_and_asks_nobody(hub: Hub, told: Told) -> None:
    assert inspect("recurrentgemma-9b", offline=True, watch=told.watch)["parameters"] == 8579977216
    assert "offline" in told.notices[0] and not hub.requests


def test_a_deepmind_repository_is_told_by_its_name_or_by_a_config(hub: Hub) -> None:
    hub.repos["google/recurrentgemma-2b-pytorch"] = Repo({"2b.pt": bytes(5_000)})
    hub.repos["someone/else"] = Repo({"mine.pt": bytes(5_000)})
    figures = inspect("google/recurrentgemma-2b-pytorch")
    assert figures["parameters"] == 2_682_862_080 and figures["files"]["dtypes"] == {}
    assert figures["files"]["files"] == {"2b.pt": 5_000}
    with pytest.raises(ConfigError, match="--config"):
        inspect("someone/else")
    assert inspect("someone/else", config="tiny-hawk")["config"]["layers"] == 5
    assert not hub.of("2b.pt") and not hub.of("mine.pt")


def test_a_header_that_is_none_is_an_error_that_names_the_file(large: Repo) -> None:
    name = next(name for name in large.files if name.endswith(".safetensors"))
    large.spoiled = {name: b"\xff" * 3_000}
    with pytest.raises(HubError, match=name):
        inspect("someone/large-it")
