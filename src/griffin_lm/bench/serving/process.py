"""`griffin serve` in a process of its own: started, watched, ended or killed."""

import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import psutil

from ...errors import GriffinError

LONGEST_START = 180.0  # seconds; the machine may be busy with other things
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Process:
    """A server that runs, on 127.0.0.1."""

    run: subprocess.Popen[bytes]
    port: int

    @property
    def url(self) -> str:
        """Without a slash at its end."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def memory(self) -> int:
        """Resident bytes."""
        return int(psutil.Process(self.run.pid).memory_info().rss)

    @property
    def descriptors(self) -> int:
        """Open files and connections."""
        return psutil.Process(self.run.pid).num_fds()

    def get(self, path: str) -> str:
        """What a route answers. Raises OSError where it does not, or with an error."""
        with _DIRECT.open(f"{self.url}{path}", timeout=60) as answer:
            return answer.read().decode()

    def figures(self) -> dict[str, float]:
        """`/metrics`: values by name, labels and all."""
        lines = (line for line in self.get("/metrics").splitlines() if line[:1] not in ("#", ""))
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}

    def kill(self) -> None:
        """SIGKILL: it can't do anything about it."""
        self.run.kill()
        self.run.wait()

    def stop(self, longest: float = LONGEST_START) -> int:
        """SIGTERM; its exit status."""
        self.run.send_signal(signal.SIGTERM)
        return self.run.wait(longest)


@contextmanager
def serving(options: Sequence[str] = (), model: str = "fledgling") -> Generator[Process]:
    """A server that takes requests; killed at the end, if it is not gone by then.

    Raises `GriffinError` with its last words where it ends before that, or does not begin.
    """
    port = _free_port()
    line = [sys.executable, "-m", "griffin_lm.cli.main", "serve", model, "--port", str(port)]
    with tempfile.TemporaryFile() as words:  # not a pipe: nobody would empty it
        run = subprocess.Popen([*line, *options], stdout=words, stderr=words)
        process = Process(run, port)
        try:
            if not _begun(process):
                words.seek(0)
                last = words.read()[-2000:].decode(errors="replace")
                raise GriffinError(f"`griffin serve` did not begin to serve:\n{last}")
            yield process
        finally:
            process.kill()


def _begun(process: Process) -> bool:
    until = time.monotonic() + LONGEST_START
    while process.run.poll() is None and time.monotonic() < until:
        try:
            process.get("/ready")
            return True
        except OSError:
            time.sleep(0.05)
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
