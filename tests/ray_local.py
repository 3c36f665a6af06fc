"""A Ray of two processors for one program: on this machine only, with nothing left of it after."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]
LIMIT = 240.0  # seconds: a loaded machine starts Ray's processes slowly

BEGIN = """
import runpy, sys
import ray
ray.init(address="local", num_cpus=2, include_dashboard=False, _node_ip_address="127.0.0.1")
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@contextmanager
def program(log: Path, *words: str | Path) -> Iterator[subprocess.Popen]:
    """A Python file as a program of its own, inside a Ray that ends with it.

    Its output goes to `log`. On leaving it gets Ctrl-C if it still runs; fails where processes of
    its Ray outlive it.
    """
    # short, since Ray's sockets lie there; Ray keeps a token in the home directory
    folder = tempfile.mkdtemp(prefix="ray")
    environment = os.environ | {
        "HOME": folder,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
        "RAY_TMPDIR": folder,
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    command = [sys.executable, "-c", BEGIN, *map(str, words)]
    family: list[psutil.Process] = []
    try:
        with log.open("wb") as out:
            process = subprocess.Popen(
                command, stdout=out, stderr=subprocess.STDOUT, cwd=ROOT, env=environment
            )
        family.append(psutil.Process(process.pid))
        try:
            yield process
        finally:
            with suppress(psutil.NoSuchProcess):  # it has ended by itself
                family += family[0].children(recursive=True)
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):  # then it is killed
                process.wait(LIMIT)
        _, left = psutil.wait_procs(family, timeout=60)
        assert not left, f"still there: {left}\n{tail(log)}"
    finally:
        for one in family:
            with suppress(psutil.NoSuchProcess):  # it has ended by itself
                one.kill()
        shutil.rmtree(folder, ignore_errors=True)


def finished(log: Path, *words: str | Path) -> str:
    """What the program printed, once it has ended by itself and well."""
    with program(log, *words) as process:
        code = process.wait(LIMIT)
    assert code == 0, tail(log)
    return log.read_text(errors="replace")


def until(deadline: float, process: subprocess.Popen, log: Path) -> None:
    """A moment's wait; fails past the deadline, and where the program has ended."""
    assert process.poll() is None and time.monotonic() < deadline, tail(log)
    time.sleep(0.2)


def tail(log: Path) -> str:
    """The end of its output."""
    return log.read_text(errors="replace")[-3000:]
