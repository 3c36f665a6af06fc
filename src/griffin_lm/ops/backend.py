"""Which implementation serves a call: the only place where that is decided.

An operation lists its backends, best first. Each says by `why_not` whether it can serve these very
arguments; "auto" takes the first that can, and a name given by `prefer` never falls back.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from ..errors import BackendUnavailable, ConfigError

NAMES = ("auto", "reference", "native", "triton")


class Backend(NamedTuple):
    """One implementation of an operation.

    why_not: of the operation's arguments, the reason why it can't serve them, or None.
    """

    name: str
    run: Callable[..., Any]
    why_not: Callable[..., str | None]


def always(*_: object) -> None:
    """The `why_not` of a backend that serves whatever comes."""
    return None


class _Preference:
    name = "auto"


def preferred() -> str:
    """The name in force: "auto" unless inside `prefer`."""
    return _Preference.name


@contextmanager
def prefer(name: str) -> Generator[None]:
    """Within, every operation that has a backend of this name uses it, or raises.

    Operations that have no backend of this name use their reference: "native" doesn't ask for a
    compiled embedding lookup. For the process, not per thread. Raises ConfigError for no such name.
    """
    if name not in NAMES:
        raise ConfigError(f"kernels={name!r} is none of: {', '.join(NAMES)}")
    before, _Preference.name = _Preference.name, name
    try:
        yield
    finally:
        _Preference.name = before


def choose(operation: str, backends: Sequence[Backend], *arguments: Any) -> Callable[..., Any]:
    """The implementation that serves these arguments.

    Raises BackendUnavailable where the preferred one is there but can't serve, saying why.
    """
    wanted = _Preference.name
    if wanted == "auto":
        for backend in backends:
            if backend.why_not(*arguments) is None:
                return backend.run
    for backend in backends:
        if backend.name == wanted:
            reason = backend.why_not(*arguments)
            if reason is not None:
                raise BackendUnavailable(
                    f"kernels={wanted!r} can't serve {operation}: {reason}; say 'auto'"
                )
            return backend.run
    return backends[-1].run
