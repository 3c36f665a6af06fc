"""A contender in a process of its own: it keeps its model loaded and answers questions.

So that every contender is measured in every round, whatever pools of threads and memory it brings,
and none of them sees another's.
"""

import importlib
import multiprocessing
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any

from ... import errors
from ...errors import GriffinError

LONGEST = 1800.0  # seconds that one answer may take: a full-size model is made in less


class Child:
    """A process that holds `module`'s class `Contender`, made with `options`."""

    def __init__(self, module: str, options: Mapping[str, Any]) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        arguments = (theirs, module, dict(options))
        self._process = context.Process(target=_serve, args=arguments, daemon=True)
        self._process.start()
        theirs.close()
        self._name = module.rsplit(".", 1)[-1]

    def ask(self, method: str, *arguments: Any) -> Any:
        """The answer of the contender's method. Raises its own error, or that it died."""
        try:
            self._connection.send((method, arguments))
            if not self._connection.poll(LONGEST):
                raise GriffinError(f"{self._name} gave no answer within {LONGEST:.0f} s")
            failed, answer = self._connection.recv()
        except (EOFError, OSError) as error:
            self._process.join(5)
            code = self._process.exitcode
            raise GriffinError(
                f"the process of {self._name} ended (exit code {code}); is there enough memory?"
            ) from error
        if failed:
            kind, message = answer
            known = getattr(errors, kind, GriffinError)
            error = GriffinError.__new__(known)
            error.args = (message,)
            raise error
        return answer

    def memory(self) -> dict[str, int]:
        """Bytes now in its memory: anonymous, of mapped files, shared."""
        return memory_of(self._process.pid)

    def close(self) -> None:
        """Ends the process and gives its memory back."""
        self._connection.close()
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def __enter__(self) -> "Child":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def memory_of(process: int | None) -> dict[str, int]:
    """RssAnon, RssFile and RssShmem of a process in bytes; nothing where there is no /proc."""
    path = Path(f"/proc/{process or 'self'}/status")
    names = {"RssAnon": "anonymous", "RssFile": "files", "RssShmem": "shared"}
    if not path.exists():
        return {}
    lines = (line.split(":", 1) for line in path.read_text().splitlines() if ":" in line)
    return {names[name]: int(value.split()[0]) * 1024 for name, value in lines if name in names}


def _serve(connection: Connection, module: str, options: dict[str, Any]) -> None:
    """Makes the contender at the first question, then answers until the pipe is closed."""
    contender: Any = None
    while True:
        try:
            method, arguments = connection.recv()
        except (EOFError, KeyboardInterrupt):
            return
        try:
            if contender is None:
                contender = importlib.import_module(module).Contender(**options)
            answer = (False, getattr(contender, method)(*arguments))
        except Exception as error:  # handed to whoever asked
            answer = (True, _told(error))
        connection.send(answer)


def _told(error: Exception) -> tuple[str, str]:
    if isinstance(error, GriffinError):
        return type(error).__name__, str(error)
    return "GriffinError", f"{type(error).__name__}: {error}"
