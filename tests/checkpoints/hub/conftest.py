"""A hub on loopback, its cache in a folder of the test, and huggingface_hub told of both."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import griffin_lm as griffin
from griffin_lm.checkpoints import save_model
from griffin_lm.checkpoints.hub import Preflight, Watch, download
from tests.checkpoints.helpers import TINY, random_model
from tests.checkpoints.hub.server import Hub, Repo
from tests.inference.vocabulary import vocabulary

ID = "google/recurrentgemma-2b-it"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The server; as if HF_ENDPOINT, HF_HUB_CACHE and HF_TOKEN_PATH had been set before Python."""
    from huggingface_hub import close_session, constants

    server = Hub()
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 5)
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 5)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(download, "PAUSE", 0.01)
    close_session()
    yield server
    close_session()
    server.close()


@pytest.fixture(scope="session")
def model() -> griffin.Griffin:
    """What is published: tiny, of RecurrentGemma's kind."""
    return random_model(replace(TINY, vocab=vocabulary().vocab_size))


@pytest.fixture(scope="session")
def files(model: griffin.Griffin, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The model in Hugging Face's format, in shards, with its vocabulary."""
    folder = tmp_path_factory.mktemp("published") / "model"
    save_model(model, folder, "huggingface", vocabulary(), max_shard_bytes=60_000)
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert sum(name.endswith(".safetensors") for name in found) > 2
    return found


@pytest.fixture
def repo(hub: Hub, files: dict[str, bytes]) -> Repo:
    """The model published under an alias, with files beside it that nobody needs."""
    waste = ("pytorch_model.bin", "model.gguf", "2b-it.pt")
    hub.repos[ID] = Repo(files | dict.fromkeys(waste, bytes(9_000)))
    return hub.repos[ID]


class Told:
    """Keeps what its `watch` is told."""

    def __init__(self) -> None:
        self.plans: list[Preflight] = []
        self.steps: list[tuple[int, int]] = []
        self.notices: list[str] = []
        self.watch = Watch(
            self.plans.append,
            lambda done, total: self.steps.append((done, total)),
            self.notices.append,
        )


@pytest.fixture
def told() -> Told:
    """A watch that remembers."""
    return Told()
