"""Processes started by torchrun, with a hard limit, and killed by their own ids."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil

ROOT = Path(__file__).parents[3]
LIMIT = 150.0  # seconds


class Ended(NamedTuple):
    """code: torchrun's exit status; text: what all of them printed; left: processes that stayed."""

    code: int
    text: str
    seconds: float
    left: list[psutil.Process]


def torchrun(
    count: int, *words: str, seen: Callable[[str, int], None] | None = None, restarts: int = 0
) -> Ended:
    """`torchrun --nproc-per-node count words`, to its end.

    seen: told every line printed, and torchrun's process id.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--max-restarts", str(restarts), "--nproc-per-node", str(count), *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    environment |= {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"} if restarts else {}
    began, lines = time.monotonic(), []
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        cwd=ROOT,
        env=environment,
    ) as process:
        assert process.stdout is not None
        family: set[psutil.Process] = set()
        limit = threading.Timer(LIMIT, end, (process.pid,))
        limit.start()
        try:
            for line in process.stdout:
                lines.append(line)
                with suppress(psutil.NoSuchProcess):  # it has ended by itself
                    family |= set(psutil.Process(process.pid).children(recursive=True))
                if seen is not None:
                    seen(line, process.pid)
            process.wait()
        finally:
            limit.cancel()
            end(process.pid)
    left = [one for one in family if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
    for one in left:
        one.kill()
    return Ended(process.returncode, "".join(lines), time.monotonic() - began, left)


def end(pid: int) -> None:
    """Kills a process and all that it started; one that is gone is none."""
    with suppress(psutil.NoSuchProcess):  # it has ended by itself
        parent = psutil.Process(pid)
        for one in [*parent.children(recursive=True), parent]:
            one.kill()


def rank_of(parent: int, rank: int) -> psutil.Process:
    """torchrun's process of that rank."""
    for one in psutil.Process(parent).children(recursive=True):
        if one.environ().get("RANK") == str(rank):
            return one
    raise AssertionError(f"no process of rank {rank}")
