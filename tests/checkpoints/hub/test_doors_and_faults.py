"""Every way in which the hub can refuse or fail, and what the user is told to do about it."""

import errno
import time
from pathlib import Path

import pytest

from griffin_lm.checkpoints.hub import HubId, download, snapshot
from griffin_lm.errors import CheckpointCorrupt, CheckpointNotFound, GriffinError, HubError
from tests.checkpoints.hub.conftest import ID, Told
from tests.checkpoints.hub.server import Hub, Repo

RESUMES = "run the same command again"


@pytest.fixture
def shard(repo: Repo) -> str:
    """The second file of weights."""
    return sorted(name for name in repo.files if name.endswith(".safetensors"))[1]


def refusal(kind: type[GriffinError] = HubError) -> str:
    with pytest.raises(kind) as caught:
        snapshot(HubId(ID))
    assert type(caught.value) is kind
    return str(caught.value)


# ---- doors


def test_a_licence_without_a_login_names_page_login_and_fledgling(repo: Repo, hub: Hub) -> None:
    repo.gate = "login"
    told = refusal()
    for words in ("licence", "401", f"{hub.url}/{ID}", "hf auth login", "HF_TOKEN", "fledgling"):
        assert words in told, words


def test_a_licence_not_accepted_names_page_and_fledgling(repo: Repo, hub: Hub, monkeypatch) -> None:
    repo.gate = "login"
    monkeypatch.setenv("HF_TOKEN", hub.token)
    told = refusal()
    for words in ("licence", "403", f"accept it at {hub.url}/{ID}", "token", "fledgling"):
        assert words in told, words


def test_a_repository_that_is_hidden_may_be_private_or_none(repo: Repo, hub: Hub) -> None:
    repo.gate = "hidden"
    told = refusal()
    for words in ("401", "private or gated", "hf auth login", "HF_TOKEN", "fledgling"):
        assert words in told, words


def test_a_wrong_token_is_told_from_none(repo: Repo, monkeypatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    told = refusal()
    assert "does not accept your token" in told and "hf auth login" in told


def test_what_does_not_exist_is_answered_with_names_like_it(hub: Hub, monkeypatch) -> None:
    monkeypatch.setenv("HF_TOKEN", hub.token)
    with pytest.raises(CheckpointNotFound, match=r"did you mean recurrentgemma-2b-it"):
        snapshot(HubId("google/recurentgemma-2b-it"))
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HubError, match=r"did you mean recurrentgemma-2b-it"):
        snapshot(HubId("google/recurentgemma-2b-it"))


def test_nothing_of_the_token_stands_in_a_message(repo: Repo, hub: Hub, monkeypatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret_of_mine")
    assert "hf_secret_of_mine" not in refusal()


# ---- faults


def test_a_busy_hub_is_asked_again_for_files(repo: Repo, hub: Hub, told: Told) -> None:
    class Busy(Told):
        def __init__(self) -> None:
            super().__init__()
            self.watch = type(told.watch)(self.once, told.watch.progress, told.watch.notice)

        def once(self, _: object) -> None:
            hub.busy = 2

    assert snapshot(HubId(ID), watch=Busy().watch).path.is_dir()


def test_a_hub_that_stays_busy_is_an_error_that_says_later(hub: Hub) -> None:
    hub.busy = 1_000
    told = refusal()
    assert "answered 503" in told and "later" in told and RESUMES in told


def test_a_slow_hub_is_not_waited_for_without_end(repo: Repo, hub: Hub, monkeypatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.2)
    hub.delay = 30.0
    begun = time.monotonic()
    told = refusal()
    assert time.monotonic() - begun < 20
    assert "did not answer in time" in told and "HF_HUB_ETAG_TIMEOUT" in told


def test_a_file_that_stalls_is_given_up_and_resumed_later(
    repo: Repo, hub: Hub, monkeypatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.3)
    monkeypatch.setattr(download, "ATTEMPTS", 2)
    hub.pace = 2.0
    told = refusal()
    assert "did not answer in time" in told and RESUMES in told


def test_a_cut_connection_is_taken_up_where_it_broke(repo: Repo, shard: str, hub: Hub) -> None:
    repo.cut, repo.cuts = {shard: 20_000}, 1
    snapshot(HubId(ID))
    first, second = hub.of(shard)
    assert first.sent == 20_000 and second.range == "bytes=20000-"
    assert first.sent + second.sent == len(repo.files[shard])


def test_a_connection_that_always_breaks_is_an_error_that_says_it_resumes(
    repo: Repo, shard: str, hub: Hub
) -> None:
    repo.cut = {shard: 0}
    told = refusal()
    assert f"fetch {shard}" in told and "broke" in told and RESUMES in told
    repo.cut = {}
    assert snapshot(HubId(ID)).path.is_dir()


def test_wrong_bytes_are_found_and_fetched_anew_the_next_time(
    repo: Repo, shard: str, hub: Hub
) -> None:
    good = repo.files[shard]
    repo.spoiled = {shard: good[:-1] + bytes([good[-1] ^ 1])}
    told = refusal(CheckpointCorrupt)
    assert f"{shard} of {ID} came damaged: its checksum" in told and "again" in told
    repo.spoiled = {}
    assert (snapshot(HubId(ID)).folder / shard).read_bytes() == good


@pytest.mark.parametrize("change", [-5, 5], ids=["too short", "too long"])
def test_a_file_of_another_size_is_found(repo: Repo, shard: str, hub: Hub, change: int) -> None:
    good = repo.files[shard]
    repo.spoiled = {shard: good[:change] if change < 0 else good + bytes(change)}
    told = refusal(CheckpointCorrupt)
    assert f"of {len(good)}" in told and "came damaged" in told
    repo.spoiled = {}
    assert snapshot(HubId(ID)).path.is_dir()


def test_wrong_bytes_of_a_small_file_are_found_too(repo: Repo) -> None:
    repo.spoiled = {"config.json": repo.files["config.json"].replace(b"e", b"a")}
    assert "config.json" in refusal(CheckpointCorrupt)


def test_a_disk_that_fills_up_is_told_as_such(repo: Repo, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(download, "_stream", full)
    told = refusal()
    assert "the disk is full" in told and "HF_HOME" in told and RESUMES in told


def test_a_cache_that_cannot_be_written_is_told_as_such(repo: Repo, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file in its place")
    told = refusal()
    assert str(tmp_path / "cache") in told and "HF_HOME" in told


def test_a_server_that_is_no_hub_is_told_as_such(repo: Repo) -> None:
    repo.commit = "not a commit"
    repo.revisions = ("main",)
    assert "is it a hub? check HF_ENDPOINT" in refusal()


def test_an_index_that_names_files_which_are_not_there(repo: Repo, shard: str) -> None:
    del repo.files[shard]
    assert f"lacks {shard}" in refusal(CheckpointNotFound)
