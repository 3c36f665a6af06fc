"""A state on disk: saved, loaded, gone on from; beside the bare writing of as many bytes."""

import os
import secrets
import time
from pathlib import Path

from ...inference import LanguageModel
from ...inference.engine import Engine, Request, RowOptions
from ...models import State
from ..cpu.ours import state_at

RAW = "raw write and fsync"
RENAMED = "raw write, fsync, rename and fsync of the folder"


class Disk:
    """A session on disk that has read so many tokens; and as many bytes that are none."""

    def __init__(self, lm: LanguageModel, folder: Path, tokens: int) -> None:
        self.lm, self.folder = lm, folder
        self.file = folder / "head.safetensors"
        self.state = state_at(lm.model, 1, tokens).with_pending([1])
        self.state.save(self.file)
        self.size = self.file.stat().st_size

    def save(self) -> float:
        """Seconds to save."""
        began = time.perf_counter()
        self.state.save(self.file)
        return time.perf_counter() - began

    def raw(self) -> float:
        """Seconds to write and sync as many bytes."""
        data = secrets.token_bytes(self.size)
        began = time.perf_counter()
        with open(self.folder / "raw", "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        return time.perf_counter() - began

    def raw_renamed(self) -> float:
        """The same as safe as a save: aside, renamed, the folder synced. For information."""
        data, aside = secrets.token_bytes(self.size), self.folder / "aside"
        began = time.perf_counter()
        with open(aside, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, self.folder / "raw")
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return time.perf_counter() - began

    def load(self) -> float:
        """Seconds to load, from the system's cache of files."""
        began = time.perf_counter()
        State.load(self.file, self.lm)
        return time.perf_counter() - began

    def first_token(self) -> float:
        """Seconds from the file to the first token."""
        began = time.perf_counter()
        state = State.load(self.file, self.lm)
        return time.perf_counter() - began + first_token(self.lm, [], state)


def first_token(lm: LanguageModel, ids: list[int], state: State | None) -> float:
    """Seconds from a request to its first token, in an engine of its own."""
    engine = Engine(lm, slots=1)
    began = time.perf_counter()
    options = RowOptions(max_new_tokens=1)
    engine.submit(Request(ids=ids, state=state, options=options), lambda _: None)
    engine.run_until_idle()
    return time.perf_counter() - began
