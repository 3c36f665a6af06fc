"""A download that was interrupted goes on: the second run asks for what the first did not get."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from griffin_lm.checkpoints.hub import HubId, download, snapshot
from griffin_lm.errors import HubError
from tests.checkpoints.hub.conftest import ID, Told
from tests.checkpoints.hub.server import Hub, Repo, etag

BIG = "model.safetensors"


@pytest.fixture
def big(hub: Hub, files: dict[str, bytes]) -> Repo:
    """One file of weights of 3 MB, of no model: it is only fetched."""
    content = {"config.json": files["config.json"], BIG: os.urandom(3_000_000)}
    hub.repos[ID] = Repo(content)
    return hub.repos[ID]


def sent(hub: Hub) -> list[tuple[str | None, int]]:
    return [(request.range, request.sent) for request in hub.of(BIG)]


@pytest.mark.parametrize("after", [1, 65_536, 1_234_567, 2_999_999])
def test_the_second_run_asks_for_the_rest_only(
    big: Repo, hub: Hub, monkeypatch, told: Told, after: int
) -> None:
    monkeypatch.setattr(download, "ATTEMPTS", 1)
    big.cut = {BIG: after}
    with pytest.raises(HubError, match="run the same command again"):
        snapshot(HubId(ID))
    big.cut = {}
    found = snapshot(HubId(ID), watch=told.watch)
    assert sent(hub) == [(None, after), (f"bytes={after}-", 3_000_000 - after)]
    assert (found.folder / BIG).read_bytes() == big.files[BIG]
    assert told.plans[0].fetch == 3_000_000 - after
    assert told.steps[0] == (after, 3_000_000) and told.steps[-1] == (3_000_000, 3_000_000)


def test_many_interruptions_fetch_every_byte_once(big: Repo, hub: Hub, monkeypatch) -> None:
    monkeypatch.setattr(download, "ATTEMPTS", 1)
    big.cut = {BIG: 700_001}
    for _ in range(4):
        with pytest.raises(HubError):
            snapshot(HubId(ID))
    assert (snapshot(HubId(ID)).folder / BIG).read_bytes() == big.files[BIG]
    assert sum(count for _, count in sent(hub)) == 3_000_000


def test_a_server_without_ranges_still_serves(big: Repo, hub: Hub, monkeypatch) -> None:
    monkeypatch.setattr(download, "ATTEMPTS", 1)
    big.cut, big.cuts = {BIG: 1_000_000}, 1
    with pytest.raises(HubError):
        snapshot(HubId(ID))
    hub.honours_ranges = False
    assert (snapshot(HubId(ID)).folder / BIG).read_bytes() == big.files[BIG]


def test_a_first_part_that_was_damaged_is_fetched_anew_at_once(
    big: Repo, hub: Hub, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(download, "ATTEMPTS", 1)
    big.cut, big.cuts = {BIG: 1_000_000}, 1
    with pytest.raises(HubError):
        snapshot(HubId(ID))
    (part,) = (tmp_path / "cache").rglob("*.incomplete")
    part.write_bytes(bytes(1_000_000))  # as after a power cut
    assert (snapshot(HubId(ID)).folder / BIG).read_bytes() == big.files[BIG]
    assert sent(hub)[1:] == [("bytes=1000000-", 2_000_000), (None, 3_000_000)]


def test_a_part_that_is_whole_needs_no_request(big: Repo, hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "cache" / f"models--{ID.replace('/', '--')}" / "blobs"
    folder.mkdir(parents=True)
    (folder / f"{etag(big.files[BIG])}.incomplete").write_bytes(big.files[BIG])
    assert (snapshot(HubId(ID)).folder / BIG).read_bytes() == big.files[BIG]
    assert not sent(hub)


def environment(hub: Hub, cache: Path) -> dict[str, str]:
    return {
        **{key: value for key, value in os.environ.items() if not key.startswith("HF_")},
        "HF_ENDPOINT": hub.url,
        "HF_HUB_CACHE": str(cache),
        "HF_HOME": str(cache.parent / "home"),
        "HF_HUB_OFFLINE": "0",
    }


# Whoever runs the tests in the background ignores Ctrl-C, and so would what they start.
SCRIPT = f"""
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from griffin_lm.checkpoints.hub import HubId, snapshot
print(snapshot(HubId({ID!r})).path)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGINT], ids=["SIGKILL", "Ctrl-C"])
def test_a_process_that_was_killed_is_gone_on_from(
    big: Repo, hub: Hub, tmp_path: Path, kind: signal.Signals
) -> None:
    cache = tmp_path / "cache"
    hub.pace = 0.05  # 1.3 MB/s: there is time to kill it
    command = [sys.executable, "-c", SCRIPT]
    process = subprocess.Popen(
        command, env=environment(hub, cache), stderr=subprocess.DEVNULL, text=True
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        parts = [path.stat().st_size for path in cache.rglob("*.incomplete")]
        if parts and max(parts) > 500_000:
            break
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    process.send_signal(kind)
    assert process.wait(60) != 0
    (part,) = cache.rglob("*.incomplete")
    kept = part.stat().st_size
    assert 500_000 < kept < 3_000_000
    hub.pace = 0.0
    hub.requests.clear()
    again = subprocess.run(
        command, env=environment(hub, cache), capture_output=True, text=True, timeout=120
    )
    assert again.returncode == 0, again.stderr
    assert (Path(again.stdout.strip()) / BIG).read_bytes() == big.files[BIG]
    assert sent(hub) == [(f"bytes={kept}-", 3_000_000 - kept)]


@pytest.mark.slow
def test_two_processes_at_once_fetch_it_once(big: Repo, hub: Hub, tmp_path: Path) -> None:
    hub.pace = 0.01
    command = [sys.executable, "-c", SCRIPT]
    env = environment(hub, tmp_path / "cache")
    both = [subprocess.Popen(command, env=env, stdout=subprocess.PIPE) for _ in range(2)]
    outputs = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0] and outputs[0] == outputs[1]
    assert sum(count for _, count in sent(hub)) == 3_000_000
