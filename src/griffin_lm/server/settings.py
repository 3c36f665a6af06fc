"""What a server is told at its start."""

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError

MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The options of `griffin serve`. Raises `ConfigError` for what must not be.

    api_keys       who may call; none: anybody who reaches the port, which then must be this machine
    max_sessions   requests served at once: slots, whose memory is taken at the start
    max_queue      requests that may wait besides; one more is refused with 429
    state_dir      where sessions and responses lie; None: a folder that goes with the process
    cache_bytes    for the prefix cache
    max_tokens     that one request may generate
    max_prompt     tokens of one prompt (appending to a session has no limit)
    max_body       bytes of a JSON body
    max_responses  that are kept for `previous_response_id`, per key; the oldest go first
    seconds        that a request may take
    drain          seconds that requests under way are given when the server is asked to stop
    """

    host: str = "127.0.0.1"
    port: int = 8000
    api_keys: tuple[str, ...] = ()
    max_sessions: int = 8
    max_queue: int = 64
    state_dir: Path | None = None
    cache_bytes: int = 256 * MIB
    chunk: int = 256
    max_tokens: int = 8192
    max_prompt: int = 1_000_000
    max_body: int = 8 * MIB
    max_responses: int = 1000
    seconds: float = 600.0
    drain: float = 30.0

    def __post_init__(self) -> None:
        if any(not key.strip() or key != key.strip() for key in self.api_keys):
            raise ConfigError("an API key is empty or has blanks around it")
        if not self.api_keys and not is_loopback(self.host):
            raise ConfigError(
                f"--host {self.host} lets other machines in, but there is no key: give "
                "--api-key or --api-key-file, or bind to 127.0.0.1"
            )
        for name in ("max_sessions", "chunk", "max_tokens", "max_prompt", "max_body"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.max_queue < 0 or self.cache_bytes < 0:
            raise ConfigError("max_queue and cache_bytes must not be negative")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server bound to this host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def read_keys(file: Path) -> tuple[str, ...]:
    """The keys in a file, one a line; empty lines and those that begin with # are none."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"can't read the keys in {file}: {error}") from error
    keys = tuple(line.strip() for line in lines if line.strip() and not line.startswith("#"))
    if not keys:
        raise ConfigError(f"there is no key in {file}")
    return keys
