"""What several commands share: options, loading with a progress line, JSON files, Ctrl-C."""

import json
import shlex
import signal
import sys
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError

if TYPE_CHECKING:
    from ..inference import LanguageModel
    from ..models import State

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help='"fledgling" (bundled), the path of a checkpoint or of a training run, an alias such '
        "as recurrentgemma-2b-it, or a hub id",
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps")]
DType = Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16")]
Quantize = Annotated[
    str | None, typer.Option(metavar="KIND", help="int8 or int4: matrices are rounded")
]
Kernels = Annotated[
    str, typer.Option(help="auto, native, triton or reference; a name never falls back")
]
Config = Annotated[
    str | None,
    typer.Option(
        metavar="PRESET|JSON",
        help="instead of the checkpoint's own: a preset, or settings to overrule as a JSON object",
    ),
]
Tokenizer = Annotated[
    Path | None, typer.Option(metavar="PATH", help="another tokenizer than the checkpoint's own")
]
Offline = Annotated[
    bool, typer.Option("--offline", help="never use the network: a hub id must be in the cache")
]
Adapter = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="LoRA in peft's layout, added to the weights as they are loaded"
    ),
]
KeysAndValues = Annotated[
    str,
    typer.Option(
        "--cache",
        metavar="KIND",
        help="what local attention keeps keys and values in: auto, as it computes them; or int8, "
        "rounded, about half of bfloat16's bytes. A state goes on with the kind it was saved with",
    ),
]
StateIn = Annotated[Path | None, typer.Option("--state", metavar="FILE", help="go on from it")]
StateOut = Annotated[Path | None, typer.Option(metavar="FILE", help="write the state at the end")]
JsonOut = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="also write the figures as JSON")
]

QUIET_SECONDS = 2.0  # shorter work shows no progress


@dataclass(frozen=True)
class LoadOptions:
    """The options of every command that loads a model."""

    device: str = "auto"
    dtype: str = "auto"
    quantize: str | None = None
    kernels: str = "auto"
    config: str | None = None
    tokenizer: Path | None = None
    offline: bool = False
    adapter: Path | None = None
    cache: str = "auto"


def load(model: str, options: LoadOptions) -> "LanguageModel":
    """Loads a model, with a progress line on a terminal if it takes long.

    What a download takes is printed before it begins.
    """
    from ..checkpoints.hub import on_terminal
    from ..inference import load

    with Meter("loading", "MB", 1e6) as meter:
        return load(
            model,
            device=options.device,
            dtype=options.dtype,
            quantize=options.quantize,
            kernels=options.kernels,
            config=config_of(options.config),
            tokenizer=options.tokenizer,
            progress=meter,
            offline=options.offline,
            watch=on_terminal(),
            adapter=options.adapter,
            cache=options.cache,
        )


def config_of(text: str | None) -> str | dict[str, Any] | None:
    """--config: a JSON object, or a preset's name. Raises `InputError` for JSON that is none."""
    if text is None or not text.lstrip().startswith("{"):
        return text
    try:
        return json.loads(text)
    except ValueError as error:
        raise InputError(f"--config is no JSON object ({error}): {text}") from error


def load_state(path: Path | None, lm: "LanguageModel") -> "State | None":
    """--state: the state in a file, of this very model; None where none was asked for."""
    from ..models import State

    return None if path is None else State.load(path, lm)


class Meter:
    """A line of progress on standard error, if that is a terminal and the work takes over 2 s."""

    def __init__(self, what: str, unit: str, per: float = 1.0) -> None:
        self.what, self.unit, self.per = what, unit, per
        self.begun = self.drawn = time.monotonic()
        self.shown = False

    def __call__(self, done: int, total: int) -> None:
        """Shows how far it is, at most ten times a second."""
        now = time.monotonic()
        if not sys.stderr.isatty() or now - self.begun < QUIET_SECONDS or now - self.drawn < 0.1:
            return
        self.drawn, self.shown = now, True
        line = f"{self.what} {done / self.per:,.0f} of {total / self.per:,.0f} {self.unit}"
        print(f"\r{line}\x1b[K", end="", file=sys.stderr, flush=True)

    def __enter__(self) -> "Meter":
        return self

    def __exit__(self, *_: object) -> None:
        if self.shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def said(line: str) -> None:
    """Prints a line of progress on standard error."""
    print(line, file=sys.stderr, flush=True)


def as_typed(places: Mapping[Path | None, str] | None = None) -> str:
    """The command as it was typed; places: names of files of this machine, and what to say."""
    known = {str(place): word for place, word in (places or {}).items()}
    return shlex.join(["griffin", *(known.get(word, word) for word in sys.argv[1:])])


def write_json(path: Path | None, figures: Mapping[str, Any]) -> None:
    """--json: the figures, readable, ending with a newline."""
    if path is not None:
        path.write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def text_of(argument: str) -> str:
    """A text given as an argument; "-" reads standard input, as it stands, as UTF-8."""
    if argument != "-":
        return argument
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"standard input is not UTF-8 (byte {error.start}); convert it") from error


@contextmanager
def ctrl_c_noted() -> Generator[list[bool]]:
    """Within, the first Ctrl-C only fills the list, so that the step under way is finished and its
    result kept; the second one interrupts as usual.
    """
    noted: list[bool] = []

    def note(*_: object) -> None:
        if noted:
            raise KeyboardInterrupt
        noted.append(True)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, before)
