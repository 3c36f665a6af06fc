"""Live servers with fledgling, in a thread each, and clients for them."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

import griffin_lm as griffin
from griffin_lm.inference import LanguageModel
from griffin_lm.server.run import Server
from griffin_lm.server.service import Service
from griffin_lm.server.settings import Settings

KEY, OTHER = "secret-one", "secret-two"


@dataclass
class Live:
    """A server that runs."""

    service: Service
    url: str

    def http(self, key: str | None = KEY) -> httpx.Client:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60, trust_env=False)

    def client(self, kind: Any = openai.OpenAI, key: str = KEY) -> Any:
        return kind(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=60)


@pytest.fixture(scope="session")
def fledgling() -> LanguageModel:
    return griffin.load("fledgling", dtype="float32")


@contextmanager
def running(lm: LanguageModel, **settings: Any) -> Iterator[Live]:
    service = Service(lm, "fledgling", Settings(port=0, **settings))
    server = Server(service)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield Live(service, f"http://127.0.0.1:{port}")
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


@pytest.fixture(scope="session")
def live(fledgling: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("states")
    with running(
        fledgling, api_keys=(KEY, OTHER), state_dir=folder, max_sessions=4, chunk=32, max_tokens=200
    ) as live:
        yield live
    assert live.service.engine.running == live.service.engine.waiting == 0


@pytest.fixture(scope="session")
def client(live: Live) -> openai.OpenAI:
    return live.client()


@pytest.fixture
def another(fledgling: LanguageModel, tmp_path: Path) -> Callable[..., Any]:
    """Makes a further server, with settings of its own."""
    return lambda **settings: running(fledgling, state_dir=tmp_path / "states", **settings)
