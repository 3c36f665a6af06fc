"""`tail -f log | griffin read MODEL - --save-state OUT`: for ever, at constant memory."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import griffin_lm as griffin
from griffin_lm.errors import StateError
from griffin_lm.inference import read_text
from griffin_lm.models import State
from griffin_lm.models.state_file import read_note
from tests.cli.test_read import FP32, LINE, tensors

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="RssAnon is Linux's"),
]

BLOCKS, LINES = 42, 800  # a million tokens
WARM = BLOCKS // 3
LIMIT = 240.0  # seconds for one block, which takes one
COMMAND = [sys.executable, "-c", "from griffin_lm.cli.main import main; main()", "read"]


def block(number: int) -> bytes:
    """Some 64 kB of a log."""
    return "".join(LINE.format(number * LINES + line) for line in range(LINES)).encode()


def anonymous(process: subprocess.Popen) -> int:
    """Bytes of its memory that lie in no file."""
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) << 10
    raise AssertionError("no RssAnon")


def bookmark(out: Path) -> dict[str, int]:
    """(seen, tokens) of the reading that is saved; nothing before the first save."""
    try:
        note = read_note(out) or {}
    except StateError:
        note = {}
    return {name: int(note.get(name, 0)) for name in ("seen", "tokens")}


def until(process: subprocess.Popen, holds: Callable[[], bool]) -> None:
    """Waits for as long as the reader lives, within reason."""
    end = time.monotonic() + LIMIT
    while not holds():
        assert process.poll() is None, f"it ended by itself: {process.returncode}"
        assert time.monotonic() < end, "it does not get on"
        time.sleep(0.02)


def test_a_log_is_followed_at_constant_memory_and_left_where_it_stands(
    checkpoint: Path, tmp_path: Path
) -> None:
    log, out = tmp_path / "log", tmp_path / "out"
    log.write_bytes(b"")
    words = [*COMMAND, str(checkpoint), "-", "--save-state", str(out), "--save-every", "0", *FP32]
    held: list[int] = []
    with (
        subprocess.Popen(["tail", "-n", "+1", "-f", log], stdout=subprocess.PIPE) as tail,
        subprocess.Popen(words, stdin=tail.stdout, stderr=subprocess.PIPE) as reader,
        log.open("ab", buffering=0) as writer,
    ):
        try:
            for number in range(BLOCKS):
                before = bookmark(out)["tokens"]
                writer.write(block(number))
                size = log.stat().st_size
                # all of it was looked at, and tokens of it are in a saved state: without an end
                until(
                    reader,
                    lambda size=size, before=before: (
                        bookmark(out)["seen"] == size and bookmark(out)["tokens"] > before
                    ),
                )
                held.append(anonymous(reader))
            lm = griffin.load(checkpoint, device="cpu", dtype="float32")
            ids = len(lm.encode(log.read_text()))
            until(reader, lambda: bookmark(out)["tokens"] >= ids - 64)
            reader.send_signal(signal.SIGTERM)
            assert reader.wait(LIMIT) == 143
            assert tail.poll() is None, "nobody ended the log"
        finally:
            reader.kill()
            tail.kill()
    first, later = max(held[:WARM]), max(held[WARM:])
    print(f"{size / 1e6:.1f} MB, {ids:,} tokens: RssAnon {first / 1e6:.1f}, {later / 1e6:.1f} MB")
    assert later <= first * 1.02, f"{later - first} bytes more than in the first third"
    assert bookmark(out)["tokens"] >= ids - 64
    # the same command, on a log that has grown, and then its end, goes on to where a file leads
    with log.open("ab") as writer:
        writer.write(block(BLOCKS))
    ids = len(lm.encode(log.read_text()))
    with (
        subprocess.Popen(["cat", log], stdout=subprocess.PIPE) as cat,
        subprocess.Popen(words, stdin=cat.stdout, stderr=subprocess.PIPE) as reader,
    ):
        assert cat.stdout is not None
        cat.stdout.close()  # the reader's alone, so that `cat` does not outlive it
        _, said = reader.communicate(timeout=LIMIT)
    assert reader.returncode == 0, said
    assert b"going on after" in said
    mine, theirs = State.load(out, lm), read_text(lm, log).state
    assert theirs is not None and mine.tokens.tolist() == theirs.tokens.tolist() == [ids]
    for one, other in zip(tensors(mine), tensors(theirs), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
