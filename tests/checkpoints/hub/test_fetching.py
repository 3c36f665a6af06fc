"""From an alias to a loaded model: what is asked for, what is kept, what works offline."""

import json
import socket
from pathlib import Path

import pytest
import torch

import griffin_lm as griffin
from griffin_lm.checkpoints import save_model
from griffin_lm.checkpoints.hub import HubId, Need, parse, preflight, snapshot
from griffin_lm.errors import CheckpointError, CheckpointNotFound, HubError
from tests.checkpoints.helpers import assert_same_tensors, tensors
from tests.checkpoints.hub.conftest import ID, Told
from tests.checkpoints.hub.server import COMMIT, Hub, Repo, etag
from tests.inference.vocabulary import vocabulary

CPU = Need(torch.float32, torch.device("cpu"))


def weights_of(repo: Repo) -> list[str]:
    return sorted(name for name in repo.files if name.endswith(".safetensors"))


def test_an_alias_is_fetched_and_loads_as_what_was_published(repo: Repo, hub: Hub, model) -> None:
    lm = griffin.load("recurrentgemma-2b-it", device="cpu", dtype="float32")
    assert_same_tensors(tensors(lm.model), tensors(model))
    assert lm.generate("The wind", max_new_tokens=2).tokens


def test_only_what_is_needed_is_fetched(repo: Repo, hub: Hub) -> None:
    found = snapshot(HubId(ID))
    here = {path.name for path in found.folder.iterdir()}
    assert here == set(found.files) >= {"config.json", "tokenizer.model", *weights_of(repo)}
    for waste in ("pytorch_model.bin", "model.gguf", "2b-it.pt", "README.md"):
        assert not hub.of(waste) and waste not in here
    assert "left alone: .bin, .gguf, .pt" in found.words


def test_the_cache_is_one_that_other_programs_read(repo: Repo, hub: Hub, tmp_path: Path) -> None:
    from huggingface_hub import scan_cache_dir, snapshot_download, try_to_load_from_cache

    found = snapshot(HubId(ID))
    cache = tmp_path / "cache"
    for name in found.files:
        path = try_to_load_from_cache(ID, name, cache_dir=cache)
        assert isinstance(path, str) and Path(path).read_bytes() == repo.files[name]
    assert snapshot_download(ID, cache_dir=cache, local_files_only=True) == str(found.folder)
    report = scan_cache_dir(cache)
    assert not report.warnings and report.repos and "main" in next(iter(report.repos)).refs
    assert not list(cache.rglob("*.incomplete"))


def test_what_another_program_fetched_is_not_fetched_again(repo: Repo, hub: Hub, tmp_path) -> None:
    from huggingface_hub import snapshot_download

    snapshot_download(ID, cache_dir=tmp_path / "cache", endpoint=hub.url, allow_patterns="*.safe*")
    before = {name: len(hub.of(name)) for name in weights_of(repo)}
    snapshot(HubId(ID))
    assert {name: len(hub.of(name)) for name in weights_of(repo)} == before


def test_a_second_load_asks_only_whether_something_is_new(repo: Repo, hub: Hub, told: Told) -> None:
    snapshot(HubId(ID))
    hub.requests.clear()
    snapshot(HubId(ID), watch=told.watch)
    assert [request.path for request in hub.requests] == [f"/api/models/{ID}/revision/main"]
    assert not told.plans and not told.steps and not told.notices


def test_a_commit_that_is_here_whole_needs_no_request_at_all(repo: Repo, hub: Hub) -> None:
    first = snapshot(HubId(ID, COMMIT))
    hub.requests.clear()
    assert snapshot(HubId(ID, COMMIT)).path == first.path
    assert not hub.requests


def test_a_cache_that_may_only_be_read_serves(repo: Repo, hub: Hub, monkeypatch) -> None:
    from griffin_lm.checkpoints.hub import cache

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Read-only file system")

    snapshot(HubId(ID))
    monkeypatch.setattr(cache, "_write", refuse)
    assert snapshot(HubId(ID)).path.is_dir()


def test_a_new_commit_of_a_branch_is_fetched_as_far_as_it_differs(repo: Repo, hub: Hub) -> None:
    snapshot(HubId(ID))
    repo.commit = "beef" + "0" * 36
    config = json.loads(repo.files["config.json"]) | {"logits_soft_cap": 25.0}
    repo.files["config.json"] = json.dumps(config).encode()
    hub.requests.clear()
    assert griffin.load(ID, device="cpu").config.logit_cap == 25.0
    assert not any(hub.of(name) for name in weights_of(repo)) and hub.of("config.json")


def test_a_revision_can_be_named(repo: Repo, hub: Hub) -> None:
    repo.revisions = ("main", "v1", "refs/pr/2")
    for revision in ("v1", COMMIT, "refs/pr/2"):
        found = snapshot(parse(f"recurrentgemma-2b-it@{revision}") or HubId("none/none"))
        assert found.commit == COMMIT and found.hub.revision == revision
    with pytest.raises(CheckpointNotFound, match="no branch, tag or commit 'v9'"):
        snapshot(HubId(ID, "v9"))


def test_the_figures_come_once_and_the_bytes_up_to_the_end(repo: Repo, told: Told) -> None:
    snapshot(HubId(ID), need=CPU, watch=told.watch)
    (plan,) = told.plans
    total = sum(len(repo.files[name]) for name in weights_of(repo))
    assert told.steps == sorted(told.steps) and told.steps[-1] == (total, total)
    assert plan.fetch == total < plan.total and plan.here == plan.total - plan.fetch


def test_the_token_goes_to_the_hub_and_never_to_where_it_redirects(
    repo: Repo, hub: Hub, monkeypatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", hub.token)
    repo.gate, repo.accepted = "login", True
    snapshot(HubId(ID))
    bearing = [r for r in hub.requests if r.headers.get("authorization")]
    assert bearing and not any(r.path.startswith("/cdn") for r in bearing)
    assert all(r in bearing or r.path.startswith("/cdn") for r in hub.requests)


def test_a_stored_login_is_used(repo: Repo, hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(hub.token)
    repo.gate, repo.accepted = "login", True
    assert snapshot(HubId(ID)).path.is_dir()


def test_requests_tell_nothing_of_the_machine_and_ask_for_nothing_else(
    repo: Repo, hub: Hub
) -> None:
    snapshot(HubId(ID))
    for request in hub.requests:
        agent = request.headers["user-agent"]
        assert agent.startswith("griffin-lm/") and "torch" not in agent and "agent/" not in agent
        wanted = (f"/api/models/{ID}/revision/", f"/{ID}/resolve/", "/cdn/")
        assert request.path.startswith(wanted), request.path


def test_a_mirror_is_asked_in_place_of_the_hub(repo: Repo, hub: Hub) -> None:
    snapshot(HubId(ID))
    assert all("127.0.0.1" in r.headers["host"] or "localhost" in r.headers["host"]
               for r in hub.requests)  # fmt: skip


# ---- without a network


def test_offline_the_cache_serves(repo: Repo, hub: Hub, model) -> None:
    snapshot(HubId(ID))
    hub.requests.clear()
    lm = griffin.load(ID, offline=True, device="cpu", dtype="float32")
    assert_same_tensors(tensors(lm.model), tensors(model))
    assert not hub.requests


def test_the_environment_can_say_offline_too(repo: Repo, hub: Hub, monkeypatch) -> None:
    from huggingface_hub import constants

    snapshot(HubId(ID))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.requests.clear()
    assert snapshot(HubId(ID)).path.is_dir() and not hub.requests


def test_offline_without_the_files_says_how_to_get_them(hub: Hub) -> None:
    with pytest.raises(CheckpointNotFound, match=f"not in the cache.*hf download {ID}"):
        snapshot(HubId(ID), offline=True)
    assert not hub.requests


def test_offline_with_some_of_the_files_names_the_missing(repo: Repo, hub: Hub) -> None:
    whole = snapshot(HubId(ID))
    lost = weights_of(repo)[1]
    (whole.folder / lost).unlink()
    with pytest.raises(CheckpointNotFound, match=f"lacks {lost}"):
        snapshot(HubId(ID), offline=True)


def test_a_file_cut_short_in_the_cache_is_not_taken_for_whole(repo: Repo, hub: Hub) -> None:
    whole = snapshot(HubId(ID))
    damaged = weights_of(repo)[0]
    blob = (whole.folder / damaged).resolve()
    blob.write_bytes(blob.read_bytes()[:-1])
    with pytest.raises(CheckpointNotFound, match=f"lacks {damaged}"):
        snapshot(HubId(ID), offline=True)


def test_offline_what_another_program_fetched_serves(repo: Repo, hub: Hub, tmp_path: Path) -> None:
    from huggingface_hub import snapshot_download

    snapshot_download(
        ID, cache_dir=tmp_path / "cache", endpoint=hub.url, ignore_patterns=["*.bin", "*.gguf"]
    )
    assert griffin.load(ID, offline=True, device="cpu").generate("x", max_new_tokens=1).tokens
    lost = weights_of(repo)[2]
    (snapshot(HubId(ID), offline=True).folder / lost).unlink()
    with pytest.raises(CheckpointNotFound, match=f"lacks {lost}"):
        snapshot(HubId(ID), offline=True)


def test_with_a_dead_network_a_whole_cache_still_serves_and_says_so_once(
    repo: Repo, hub: Hub, told: Told
) -> None:
    snapshot(HubId(ID))
    hub.close()
    assert snapshot(HubId(ID), watch=told.watch).commit == COMMIT
    (notice,) = told.notices
    assert "no connection" in notice and "Going on with what the cache has" in notice


def test_a_hub_that_refuses_does_not_take_away_what_is_here(repo: Repo, hub: Hub, told) -> None:
    snapshot(HubId(ID))
    repo.gate = "hidden"
    assert snapshot(HubId(ID), watch=told.watch).path.is_dir()
    assert len(told.notices) == 1


def test_a_dead_network_and_no_cache_is_an_error_with_the_way_on(hub: Hub) -> None:
    hub.close()
    with pytest.raises(HubError, match=r"no connection to http://127.*run the same command again"):
        snapshot(HubId(ID))


def test_paths_and_bundled_models_open_no_socket(tmp_path: Path, monkeypatch) -> None:
    class NoSocket(socket.socket):
        def __init__(self, *_: object, **__: object) -> None:
            raise AssertionError("a socket was opened")

    lm = griffin.load("fledgling", device="cpu")
    griffin.save(lm, tmp_path / "mine")
    monkeypatch.setattr(socket, "socket", NoSocket)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    for source in ("fledgling", tmp_path / "mine", str(tmp_path / "mine")):
        assert griffin.load(source, device="cpu").tokenizer
    with pytest.raises(CheckpointNotFound):
        griffin.load(str(tmp_path / "nowhere"))
    with pytest.raises(CheckpointNotFound):
        griffin.load("griffin-100m")


def test_an_existing_path_goes_before_a_name_on_the_hub(
    hub: Hub, tmp_path: Path, monkeypatch
) -> None:
    griffin.save(griffin.load("fledgling", device="cpu"), tmp_path / "google" / "mine")
    monkeypatch.chdir(tmp_path)
    assert griffin.load("google/mine", device="cpu").tokenizer
    assert not hub.requests


# ---- other layouts


def test_the_path_of_a_pt_file_is_the_file_under_its_own_name(hub: Hub) -> None:
    hub.repos["google/recurrentgemma-2b-pytorch"] = Repo(
        {"2b.pt": bytes(5_000), "tokenizer.model": bytes(3_000), "README.md": b"card"}
    )
    found = snapshot(HubId("google/recurrentgemma-2b-pytorch"))
    assert found.path.name == "2b.pt" and (found.path.parent / "tokenizer.model").exists()


def test_an_orbax_folder_keeps_its_tree(hub: Hub) -> None:
    tree = {"2b/_METADATA": b"{}", "2b/manifest.ocdbt": bytes(2_500), "2b/d/abc": bytes(5_000)}
    hub.repos["google/recurrentgemma-2b-flax"] = Repo(tree | {"tokenizer.model": bytes(3_000)})
    found = snapshot(HubId("google/recurrentgemma-2b-flax"))
    assert found.path.name == "2b" and (found.path.parent / "tokenizer.model").exists()
    assert {p.relative_to(found.folder).as_posix() for p in found.path.rglob("*") if p.is_file()} \
        == set(tree)  # fmt: skip
    again = snapshot(HubId("google/recurrentgemma-2b-flax"), offline=True)
    assert again.path == found.path
    (found.path / "d" / "abc").unlink()
    with pytest.raises(CheckpointNotFound, match="lacks 2b/d/abc"):
        snapshot(HubId("google/recurrentgemma-2b-flax"), offline=True)


@pytest.mark.parametrize("form", list(griffin.FORMATS))
def test_a_checkpoint_of_every_format_loads_from_a_hub(
    hub: Hub, model, tmp_path: Path, form: str
) -> None:
    folder = tmp_path / "saved"
    save_model(model, folder, form, vocabulary())
    paths = [path for path in folder.rglob("*") if path.is_file()]
    hub.repos["someone/mine"] = Repo(
        {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
    )
    told = Told()
    lm = griffin.load("someone/mine", device="cpu", dtype="float32", watch=told.watch)
    assert_same_tensors(tensors(lm.model), tensors(model))
    count = sum(parameter.numel() for parameter in model.parameters())
    assert told.plans[0].weights == 4 * count and not told.notices


def test_a_deepmind_repository_is_weighed_by_its_preset(hub: Hub) -> None:
    hub.repos["google/recurrentgemma-2b-it-pytorch"] = Repo({"2b-it.pt": bytes(5_000)})
    plan = preflight(HubId("google/recurrentgemma-2b-it-pytorch"), CPU)
    assert plan.weights == 4 * 2_682_862_080


@pytest.mark.parametrize("name", ["../../evil.safetensors", "/etc/model.safetensors", "a\\..\\b"])
def test_a_name_that_leads_out_of_the_folder_is_never_fetched(
    repo: Repo, hub: Hub, tmp_path: Path, name: str
) -> None:
    repo.files[name] = b"evil" * 700
    index = json.loads(repo.files["model.safetensors.index.json"])
    index["weight_map"]["evil"] = name
    repo.files["model.safetensors.index.json"] = json.dumps(index).encode()
    with pytest.raises(CheckpointError, match="lacks"):
        snapshot(HubId(ID))
    assert not any(etag(repo.files[name]) in request.path for request in hub.requests)


def test_a_model_of_an_unknown_kind_is_refused_before_its_weights(repo: Repo, hub: Hub) -> None:
    config = json.loads(repo.files["config.json"]) | {"model_type": "unheard_of"}
    repo.files["config.json"] = json.dumps(config).encode()
    with pytest.raises(CheckpointError, match="unheard_of"):
        griffin.load(ID, device="cpu")
    assert not any(hub.of(name) for name in weights_of(repo))
