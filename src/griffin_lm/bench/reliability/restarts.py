"""A server that is killed, or stopped, while sessions are read into: each stands where it was said.

Pieces of text are appended to every session in order, so after any number of them its tokens and
its answer to a question are known (`alone.py`). A session may have one piece more than was said:
the server died between keeping it and saying so.
"""

import asyncio
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from ..serving.http import call, message, posted
from ..serving.process import Process, serving
from . import alone

SESSIONS = 6
REST = 0.02  # seconds between two appends to a session
LONGEST = 300.0  # seconds for one answer; the machine may be busy with other things

Progress = Callable[[int, int], None]


@dataclass
class Restarted:
    """What came of it. unsaid: pieces that were kept though nobody was told."""

    kills: int = 0
    stops: int = 0
    sessions: int = SESSIONS
    appended: int = 0
    unsaid: int = 0
    compared: int = 0
    seconds: float = 0.0
    failures: list[str] = field(default_factory=list[str])

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {"what": "serve", "part": "restarts", **vars(self)}


def restarts(count: int, seed: int, progress: Progress) -> Restarted:
    """Ends a server under load so many times, by SIGKILL and SIGTERM in turn; looks after each."""
    found, draw, began = Restarted(), Random(seed), time.monotonic()
    said = {f"s{number}": 0 for number in range(SESSIONS)}
    with tempfile.TemporaryDirectory(prefix="griffin-restarts-") as folder:
        for number in range(count + 1):
            with serving((*alone.OPTIONS, "--state-dir", folder)) as process:
                asyncio.run(_all_there(process.port, said, number > 0, found))
                if number == count:
                    break
                asyncio.run(_until_it_ends(process, said, number % 2 == 0, draw, found))
            progress(number + 1, count)
        if left := [str(each) for each in Path(folder).rglob(".*")]:
            found.failures.append(f"{len(left)} half-written files: {left[0]}")
    found.seconds = round(time.monotonic() - began, 1)
    return found


async def _all_there(port: int, said: dict[str, int], there: bool, found: Restarted) -> None:
    """Each session has what was said, or one piece more; answers; and can be appended to."""
    for name, pieces in said.items():
        place = f"/v1/sessions/{name}"
        if not there:
            await call(port, posted("/v1/sessions", {"id": name}))
        info = await call(port, message("GET", place))
        tokens = info.json().get("tokens") if info.status == 200 else f"status {info.status}"
        if tokens == alone.session(pieces + 1).tokens:
            pieces += 1
            found.unsaid += 1
        elif tokens != alone.session(pieces).tokens:
            found.failures.append(f"{name} was said to have {pieces} pieces, and has {tokens}")
            continue
        said[name] = pieces
        answer = await call(port, posted(f"{place}/ask", alone.question()))
        found.compared += 1
        choices = answer.json().get("choices") or [{"message": {"content": answer.body}}]
        if choices[0]["message"]["content"] != alone.session(pieces).answer:
            found.failures.append(f"{name} answers something else: {choices}")
        if not await _append(port, name, said):
            found.failures.append(f"{name} can't be appended to")


async def _until_it_ends(
    process: Process, said: dict[str, int], kill: bool, draw: Random, found: Restarted
) -> None:
    before = sum(said.values())
    writers = [asyncio.create_task(_write(process.port, name, said)) for name in said]
    await asyncio.sleep(draw.uniform(0.1, 3.0))
    if kill:
        process.run.kill()
        found.kills += 1
    else:
        process.run.terminate()
        found.stops += 1
    status = await asyncio.to_thread(process.run.wait, LONGEST)
    await asyncio.wait_for(asyncio.gather(*writers), LONGEST)
    if not kill and status != 0:
        found.failures.append(f"told to stop, the server ended with status {status}")
    found.appended += sum(said.values()) - before


async def _write(port: int, name: str, said: dict[str, int]) -> None:
    """Appends piece after piece, until the server is gone."""
    while await _append(port, name, said):
        await asyncio.sleep(REST)


async def _append(port: int, name: str, said: dict[str, int]) -> bool:
    """Appends the next piece; whether it was said to be kept."""
    request = posted(f"/v1/sessions/{name}/append", alone.piece(said[name]))
    try:
        answer = await asyncio.wait_for(call(port, request), LONGEST)
    except OSError:
        return False
    if answer.status != 200:
        return False
    said[name] += 1
    return True
