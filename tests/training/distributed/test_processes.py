"""What needs no second process: who is blamed, what one process alone answers."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from griffin_lm.errors import ConfigError, TrainingError
from griffin_lm.training.batch import World
from griffin_lm.training.distributed import Alone, Processes, joined, processes_of, watch
from griffin_lm.training.distributed.watch import Watch
from griffin_lm.training.resume.shards import refuse_carried

BROKEN = RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:9")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "BEAT", 0.01)
    monkeypatch.setattr(watch, "HUNG", 10**6)


@pytest.fixture
def store() -> dist.Store:
    """Where three processes meet, of which this is the first."""
    store = dist.HashStore()
    for rank in range(3):
        store.set(f"alive/{rank}", "0")
    return store


@pytest.fixture
def second(store: dist.Store) -> Iterator[None]:
    """The second one lives."""
    done = threading.Event()

    def beat() -> None:
        count = 0
        while not done.wait(0.005):
            count += 1
            store.set("alive/1", str(count))

    thread = threading.Thread(target=beat)
    thread.start()
    yield
    done.set()
    thread.join()


def test_without_torchrun_a_process_is_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined("cpu") as world:
        assert world == World(0, 1, torch.device("cpu"))
        alone = processes_of(world)
    assert isinstance(alone, Alone) and isinstance(alone, Processes)
    assert alone.totals(1, 2.5) == alone.most(1, 2.5) == [1.0, 2.5]
    assert alone.texts("here") == ["here"] and alone.first(lambda: 7) == 7


def test_restarts_that_would_meet_at_an_old_store_are_refused(monkeypatch: pytest.MonkeyPatch):
    given = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    for name, value in (given | {"TORCHELASTIC_MAX_RESTARTS": "3"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", raising=False)
    with pytest.raises(ConfigError, match="set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1"):
        joined("cpu").__enter__()


def test_who_gives_no_sign_of_life_is_blamed(store: dist.Store, second: None):
    blame = r"process 2 died: no sign of life.*--resume auto"
    with pytest.raises(TrainingError, match=blame), Watch(0, 3, store):
        raise BROKEN
    assert store.get("gone").startswith(b"2 died")  # so that the others need not find out


def test_who_left_its_words_is_quoted(store: dist.Store, second: None):
    with pytest.raises(TrainingError, match="no room"), Watch(1, 3, store):
        raise TrainingError("no room for this batch")
    quoted = "process 1 stopped: no room for this batch"
    with pytest.raises(TrainingError, match=quoted), Watch(0, 3, store):
        raise BROKEN


def test_errors_of_ones_own_stay_what_they_are(store: dist.Store):
    with pytest.raises(ZeroDivisionError), Watch(0, 3, store):
        raise ZeroDivisionError("by hand")
    assert store.get("gone") == b"0 stopped: ZeroDivisionError: by hand"


def test_a_process_that_hangs_in_a_call_is_ended_once_another_is_gone(
    store: dist.Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    ended = threading.Event()

    def leave(code: int) -> None:
        assert code == 1
        ended.set()

    monkeypatch.setattr(watch.os, "_exit", leave)
    monkeypatch.setattr(watch, "HUNG", 20)
    with Watch(0, 3, store):
        assert ended.wait(20), "the neighbour's silence was not noticed"
    assert "process 1 died: no sign of life" in capsys.readouterr().err


def test_carried_states_stay_with_their_number_of_processes():
    refuse_carried([torch.zeros(1)], Path("run"), 2, 2)
    refuse_carried(None, Path("run"), 2, 4)
    with pytest.raises(TrainingError, match=r"rows of 2 processes; go on with as many, not 4"):
        refuse_carried([torch.zeros(1)], Path("run"), 2, 4)
