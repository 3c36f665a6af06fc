"""How a process becomes one of many: by the variables that torchrun, or who does its work, sets."""

import os
import secrets
from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from ...errors import ConfigError
from ..batch import World
from .watch import Watch

_WAIT = timedelta(minutes=10)  # for each other, where nobody is known to have died
_FRESH = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"
_WANTED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@contextmanager
def joined(device: str = "auto") -> Generator[World]:
    """This process among those that were started together; alone without torchrun's environment.

    Joins a process group (NCCL on CUDA, gloo on a CPU) unless there is one already. While entered,
    a process that stops or dies ends the others within a minute, by a TrainingError that names it.
    """
    running = dist.is_available() and dist.is_initialized()
    if not running and not all(name in os.environ for name in _WANTED):
        yield World(device=torch.device(_chosen(device)))
        return
    place = _place(_chosen(device))
    if not running:
        _refuse_an_old_store()
        backend = "cpu:gloo,cuda:nccl" if place.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=_WAIT)
    world = World(dist.get_rank(), dist.get_world_size(), place)
    nonce = [secrets.token_hex(8)]  # the store may remember who was gone the last time
    dist.broadcast_object_list(nonce)
    with Watch(world.rank, world.size, _store(nonce[0])):
        yield world
        dist.barrier()  # none leaves, and seems dead, while another still works
    if not running:
        dist.destroy_process_group()


def _refuse_an_old_store() -> None:
    """torchrun keeps its store when it starts all again; old addresses in it look like new ones."""
    restarts = int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0"))
    if restarts and os.environ.get(_FRESH) != "1":
        raise ConfigError(
            f"torchrun --max-restarts {restarts} would meet again at the store of its last start, "
            "where processes that are gone still have addresses; set "
            f"{_FRESH}=1 in torchrun's environment"
        )


def _store(nonce: str) -> Any:
    """A connection to the store of the rendezvous, apart from all else in it; None without one."""
    address, port = os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT")
    if not address or not port:
        return None
    c10d: Any = dist  # whose __all__ leaves the stores out
    store = c10d.TCPStore(address, int(port), is_master=False, timeout=timedelta(seconds=20))
    return c10d.PrefixStore(f"griffin/{nonce}", store)


def _chosen(device: str) -> str:
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def _place(device: str) -> torch.device:
    """This process's own device of that kind."""
    if device != "cuda":
        return torch.device(device)
    local, there = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if local >= there:
        raise ConfigError(
            f"process {local} of this machine has no GPU of its own: there are {there}; start "
            f"--nproc-per-node {there}, or use --device cpu"
        )
    torch.cuda.set_device(local)
    return torch.device("cuda", local)
