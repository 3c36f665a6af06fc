"""What every test starts from: fixed seeds, few threads, poisoned memory, no network."""

import os
import random
import socket
from collections.abc import Iterator
from typing import Any

# read at import by the libraries concerned, so set before any of them is imported
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

import griffin_lm as griffin

# Deadlines measure the machine, not the code. In CI the examples are the same on every run.
_COMMON: dict[str, Any] = {
    "deadline": None,
    "max_examples": 25,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
}
settings.register_profile("local", **_COMMON)
settings.register_profile("ci", derandomize=True, **_COMMON)
settings.load_profile("ci" if os.environ.get("CI") else "local")

LOOPBACK = {"127.0.0.1", "::1", "localhost", "", None}


@pytest.fixture(scope="session", autouse=True)
def few_threads() -> None:
    """Two threads: on tiny tensors more of them only wait for each other."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(min(2, os.cpu_count() or 1))


@pytest.fixture(scope="session", autouse=True)
def poisoned_memory() -> Iterator[None]:
    """torch.empty gives NaN (integers: the largest), so that reading unwritten memory shows."""
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="session", autouse=True)
def no_network() -> Iterator[None]:
    """A name or address beyond this machine is refused: nothing here may need or call one."""
    look_up, connect = socket.getaddrinfo, socket.socket.connect

    def refuse(host: Any) -> None:
        if host not in LOOPBACK:
            raise AssertionError(f"a test reached for the network: {host!r}")

    def local_look_up(host: Any, *rest: Any, **options: Any) -> Any:
        refuse(host.decode() if isinstance(host, bytes) else host)
        return look_up(host, *rest, **options)

    def local_connect(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            refuse(address[0])
        connect(self, address)

    patch = pytest.MonkeyPatch()
    patch.setattr(socket, "getaddrinfo", local_look_up)
    patch.setattr(socket.socket, "connect", local_connect)
    yield
    patch.undo()


@pytest.fixture(autouse=True)
def seeds() -> None:
    """Every test draws the same numbers, alone or among others."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def tiny_griffin() -> griffin.Griffin:
    """Five layers, both block kinds, window 8, 96 words; random weights that nobody may change."""
    return griffin.build("tiny-griffin", seed=1).requires_grad_(False)


@pytest.fixture(scope="session")
def tiny_hawk() -> griffin.Griffin:
    """As tiny_griffin, with recurrent blocks only."""
    return griffin.build("tiny-hawk", seed=1).requires_grad_(False)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked gpu are skipped, with the reason, where there is no CUDA device."""
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="no CUDA device here"))
