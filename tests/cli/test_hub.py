"""The command line and the hub: figures before, the model after, the way on where it fails."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.checkpoints.hub.conftest import ID, files, hub, model, repo
from tests.checkpoints.hub.server import Hub, Repo

__all__ = ["files", "hub", "model", "repo"]  # fixtures
WORDS = ("The wind", "--max-new-tokens", "2", "--device", "cpu", "--dtype", "float32")


def test_a_model_is_fetched_and_the_figures_stand_on_standard_error(
    run, repo: Repo, hub: Hub
) -> None:
    result = run("generate", "recurrentgemma-2b-it", *WORDS)
    assert result.code == 0, result.err
    for words in ("to fetch", "free disk", "memory needed", "safetensors"):
        assert result.err.count(words) == 1 and words not in result.out, words
    again = run("generate", "recurrentgemma-2b-it", *WORDS)
    assert again.out == result.out and again.err == ""


def test_offline_asks_nobody(run, repo: Repo, hub: Hub) -> None:
    refused = run("generate", ID, *WORDS, "--offline")
    assert refused.code == 1 and f"hf download {ID}" in refused.err and not hub.requests
    assert run("generate", ID, *WORDS).code == 0
    hub.requests.clear()
    assert run("generate", ID, *WORDS, "--offline").code == 0
    assert not hub.requests


def test_a_dead_network_is_said_once_and_the_cache_serves(run, repo: Repo, hub: Hub) -> None:
    assert run("generate", ID, *WORDS).code == 0
    hub.close()
    result = run("generate", ID, *WORDS)
    assert result.code == 0 and result.err.count("no connection") == 1
    assert result.err.startswith("griffin: ") and len(result.err.splitlines()) == 1


def test_a_licence_is_one_line_with_the_way_on(run, repo: Repo, hub: Hub) -> None:
    repo.gate = "login"
    result = run("generate", "recurrentgemma-2b-it", *WORDS)
    assert result.code == 1 and len(result.err.splitlines()) == 1
    for words in (f"{hub.url}/{ID}", "hf auth login", "HF_TOKEN", "fledgling"):
        assert words in result.err, words


def test_inspect_of_a_hub_id_fetches_no_weights(run, repo: Repo, hub: Hub) -> None:
    result = run("inspect", ID)
    assert result.code == 0, result.err
    assert "instruction-tuned" in result.out and "not downloaded" in result.out
    for name in repo.files:
        if name.endswith(".safetensors"):
            assert name in result.out
            assert all(request.range == "bytes=0-100000" for request in hub.of(name))


@pytest.mark.slow
def test_the_variables_of_huggingface_hub_are_obeyed(repo: Repo, hub: Hub, tmp_path: Path) -> None:
    repo.gate, repo.accepted = "login", True
    env = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    env |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": hub.token}
    command = [sys.executable, "-m", "griffin_lm.cli.main", "generate", ID, *WORDS]

    def execute(**extra: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, env=env | extra, capture_output=True, text=True, timeout=200)

    first = execute()
    assert first.returncode == 0, first.stderr
    assert (tmp_path / "home" / "hub" / f"models--{ID.replace('/', '--')}").is_dir()
    hub.requests.clear()
    second = execute(HF_HUB_OFFLINE="1", HF_TOKEN="")
    assert second.returncode == 0 and second.stdout == first.stdout and not hub.requests
    third = execute(HF_HUB_CACHE=str(tmp_path / "elsewhere"))
    assert third.returncode == 0 and (tmp_path / "elsewhere").is_dir()
    assert hub.requests and not any("agent" in r.path for r in hub.requests)
