"""Who is measured: this project and its peers, each in a process of its own."""

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from ...errors import InputError
from ...models import ModelConfig
from ...shapes import JSON
from . import gguf_file, huggingface, llama, ours
from .child import Child
from .rounds import Say

NAMES = ("griffin", "llama.cpp", "transformers")
BYTES = {"fp32": 4, "bf16": 2, "int8": 1.01, "int4": 0.5625}  # of a weight
ROOM = 1 << 30  # bytes left free beside a contender


@dataclass(frozen=True)
class Options:
    """What every measurement of contenders may be told.

    preset, layers, scale: the shape. weights: kinds, one after another. who: names, all of NAMES
    or a part. transformers_dtype: of that peer, bf16 or fp32, whichever is faster on the machine.
    patience: seconds to wait for other processes to rest, 0: never.
    threads: 0 takes all cores that the process may use. cache: where files for llama.cpp stay.
    """

    preset: str = "recurrentgemma-2b"
    layers: int = 0
    scale: int = 1
    weights: Sequence[str] = ("bf16", "int8", "int4")
    who: Sequence[str] = ("griffin",)
    transformers_dtype: str = "bf16"
    rounds: int = 5
    patience: float = 10.0
    threads: int = 0
    cache: Path | None = None

    def __post_init__(self) -> None:
        for given, known, flag in (
            (self.weights, ours.WEIGHTS, "--weights"),
            (self.who, NAMES, "--who"),
            ([self.transformers_dtype], huggingface.DTYPES, "--transformers-dtype"),
        ):
            if unknown := [name for name in given if name not in known]:
                raise InputError(f"{flag} {unknown[0]!r} is none of: {', '.join(known)}")

    @property
    def config(self) -> ModelConfig:
        """The shape."""
        return ours.shape(self.preset, self.layers, self.scale)

    @property
    def cores(self) -> int:
        """Threads of every contender."""
        return self.threads or usable_cores()


def usable_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def require_peers(who: Sequence[str]) -> None:
    """Raises MissingExtra, with the command that installs it, for a peer that is not there."""
    if "llama.cpp" in who:
        gguf_file.library()
        llama.library()
    if "transformers" in who:
        huggingface.library()


@dataclass(frozen=True)
class Started:
    """A contender at work. facts: what identifies it and its sizes."""

    child: Child
    facts: JSON


@dataclass(frozen=True)
class Measured:
    """Raw measurements, profiles, and the threads that they were made with."""

    raw: Sequence[JSON]
    profiles: Sequence[JSON]
    threads: int


class Field:
    """The machine and all contenders of one kind of weights, started one after another.

    A contender that memory has no room for is left out, and `say` is told.
    """

    def __init__(self, options: Options, weights: str, say: Say) -> None:
        self._options, self._weights, self._say = options, weights, say
        self._stack = ExitStack()
        self.contenders: list[Started] = []

    def __enter__(self) -> "Field":
        options = self._options
        require_peers(options.who)
        # small buffers for small models: a test need not read half a gigabyte
        small = options.config.width < 1024
        sizes: JSON = {"buffer": 1 << 24, "side": 256} if small else {}
        try:
            self._machine = self._started(
                "griffin_lm.bench.cpu.limits", {"threads": options.cores} | sizes
            )
            for who, begin in self._wanted().items():
                if who in options.who:
                    begin()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def read_bandwidth(self) -> tuple[float, str]:
        """Bytes a second, and what that is."""
        return self._machine.ask("read_bandwidth"), "read bandwidth"

    def matrix_rate(self) -> tuple[float, str]:
        """Operations a second, and what that is."""
        rate, dtype = self._machine.ask("matrix_rate")
        return rate, f"matrix rate, {dtype}"

    def _wanted(self) -> Mapping[str, Callable[[], None]]:
        found: dict[str, Callable[[], None]] = {"griffin": self._griffin}
        if self._weights != "fp32":
            found["llama.cpp"] = self._llama
        if self._weights in huggingface.DTYPES:
            found["transformers"] = self._transformers
        return found

    def _started(self, module: str, arguments: Mapping[str, Any]) -> Child:
        return self._stack.enter_context(Child(module, arguments))

    def _griffin(self) -> None:
        config = self._options.config
        arguments = {
            "threads": self._options.cores,
            "weights": self._weights,
            "config": config,
        }
        size = int(_parameters(config) * BYTES[self._weights])
        self._join("griffin", self._weights, size, "griffin_lm.bench.cpu.ours", arguments)

    def _transformers(self) -> None:
        config, kind = self._options.config, self._weights
        kind = self._options.transformers_dtype if kind == "bf16" else kind
        arguments = {"threads": self._options.cores, "weights": kind, "config": config}
        size = int(_parameters(config) * BYTES[kind])
        self._join("transformers", kind, size, "griffin_lm.bench.cpu.huggingface", arguments)

    def _llama(self) -> None:
        config = self._options.config
        matrices = ours.matrix_parameters(config)
        shape = gguf_file.Shape.beside(config.vocab, config.width, config.layers, matrices)
        folder = self._options.cache
        if folder is None:
            made = tempfile.TemporaryDirectory(prefix="griffin-bench-")
            folder = Path(self._stack.enter_context(made))
        folder.mkdir(parents=True, exist_ok=True)
        sizes = f"{shape.vocab}-{shape.width}-{shape.layers}-{shape.mlp_width}"
        path = folder / f"gemma-{sizes}-{gguf_file.TYPES[self._weights]}.gguf"
        if not path.exists():
            self._say(f"writing {path.name}")
            gguf_file.write(path, shape, self._weights)
        arguments = {"threads": self._options.cores, "path": str(path), "shape": shape}
        size = path.stat().st_size
        self._join("llama.cpp", self._weights, size, "griffin_lm.bench.cpu.llama", arguments)

    def _join(
        self, who: str, weights: str, size: int, module: str, arguments: Mapping[str, Any]
    ) -> None:
        free = psutil.virtual_memory().available
        if size + min(ROOM, size) > free:
            self._say(
                f"{who} {weights} is left out: it needs {size / 1e9:.1f} GB, and {free / 1e9:.1f} "
                "are free"
            )
            return
        child = self._started(module, arguments)
        facts = {"who": who, "weights": weights} | child.ask("facts")
        self._say(f"{who} {weights}: {facts['weights_bytes'] / 1e9:.2f} GB")
        self.contenders.append(Started(child, facts))


def _parameters(config: ModelConfig) -> int:
    return ours.matrix_parameters(config) + config.vocab * config.width * (1 if config.tied else 2)


def remembered(measured: list[JSON], contenders: Sequence[Started]) -> None:
    """Writes each contender's memory, as it is now, into its measurements."""
    for started in contenders:
        memory = started.child.memory()
        for one in measured:
            if (one["who"], one["weights"]) == (started.facts["who"], started.facts["weights"]):
                one["memory"] = memory
