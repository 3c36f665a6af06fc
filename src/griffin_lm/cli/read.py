"""`griffin read`: a text of any length goes into a state."""

import signal
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..allocator import give_back_freed_memory
from ..errors import InputError
from . import common
from .common import LoadOptions

if TYPE_CHECKING:
    from ..inference import Reading


class Errors(Enum):
    """What to do with bytes that are no UTF-8."""

    strict = "strict"
    replace = "replace"


def read(
    model: common.Model,
    file: Annotated[
        str, typer.Argument(metavar="FILE", help='the text, UTF-8; "-" reads standard input')
    ],
    state: common.StateIn = None,
    save_state: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="write the state, now and then and at the end"),
    ] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="outside turns, also with an instruction-tuned model")
    ] = False,
    markers: Annotated[
        bool, typer.Option("--markers", help="turn markers in the text become their ids")
    ] = False,
    errors: Annotated[
        Errors, typer.Option(help="bytes that are no UTF-8: refused, or replaced by U+FFFD")
    ] = Errors.strict,
    save_every: Annotated[float, typer.Option(min=0, help="seconds between two saves")] = 60.0,
    json: common.JsonOut = None,
    device: common.Device = "auto",
    dtype: common.DType = "auto",
    quantize: common.Quantize = None,
    kernels: common.Kernels = "auto",
    config: common.Config = None,
    tokenizer: common.Tokenizer = None,
    offline: common.Offline = False,
    adapter: common.Adapter = None,
    cache: common.KeysAndValues = "auto",
) -> None:
    """Read a text of any length into a state, at constant memory; ask it with `griffin ask`.

    Saved every 60 seconds, at the end, on Ctrl-C and when terminated; the same command then goes
    on, also after a kill, and where the file has grown. With an instruction-tuned model the text
    stands inside a user's turn, which `griffin ask` goes on with. --state IN reads the text after
    what IN has read; IN and the file to save may be one.
    """
    if file != "-" and not Path(file).exists():
        raise InputError(f"no file {file}; check the path")
    give_back_freed_memory()
    lm = common.load(
        model,
        LoadOptions(device, dtype, quantize, kernels, config, tokenizer, offline, adapter, cache),
    )
    from ..inference import read_text

    if save_state is None:
        _say("nothing will be kept: name a file with --save-state")
    if held := lm.tokenizer.encoder().holds_back:
        _say(f"the whole text is held in memory until its end, for {held}")
    line = Line()
    with signals_noted() as noted:
        done = read_text(
            lm,
            sys.stdin.buffer if file == "-" else Path(file),
            state=state,
            save=save_state,
            raw=raw,
            markers=markers,
            errors=errors.value,
            save_every=save_every,
            progress=line.show,
            stop=lambda: bool(noted),
        )
    line.clear()
    _summary(done, save_state)
    speed = done.new_tokens / max(done.seconds, 1e-9)
    figures = {
        "tokens": done.tokens,
        "new_tokens": done.new_tokens,
        "resumed_tokens": done.resumed,
        "bytes": done.bytes,
        "seconds": done.seconds,
        "tokens_per_s": speed,
        "state_bytes": 0 if done.state is None else done.state.nbytes,
        "finished": done.finished,
        "forced_cuts": done.forced_cuts,
        "held_back": done.held_back,
        "saves": done.saved,
    }
    common.write_json(json, figures)
    if noted:
        sys.exit(128 + noted[0])  # 130 on Ctrl-C, 143 when terminated


class Line:
    """The line of progress, on a terminal."""

    def __init__(self) -> None:
        self.begun = time.monotonic()
        self.drawn = 0.0
        self.shown = self.told = False

    def show(self, now: "Reading") -> None:
        """Tokens, tokens a second, time left, state bytes; ten times a second at most."""
        if now.resumed and not self.told:
            self.told = True
            _say(f"going on after {now.resumed:,} tokens that were read before")
        clock = time.monotonic()
        quiet = clock - self.begun < common.QUIET_SECONDS or clock - self.drawn < 0.1
        if quiet or not sys.stderr.isatty():
            return
        self.drawn, self.shown = clock, True
        speed = now.new_tokens / max(now.seconds, 1e-9)
        line = f"{now.tokens:,} tokens, {speed:,.0f} tokens/s"
        if now.size:
            share = now.bytes / now.size
            left = (now.size - now.bytes) / max(now.bytes_per_second, 1e-9)
            line += f", {share:.0%}, {_clock(left)} left"
        assert now.state is not None
        print(f"\r{line}, state {now.state.nbytes:,} B\x1b[K", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Takes the line away."""
        if self.shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


@contextmanager
def signals_noted() -> Generator[list[int]]:
    """Within, Ctrl-C and SIGTERM only fill the list, so that the chunk under way is finished and
    the state saved; a second Ctrl-C interrupts as usual (what was saved last stays).
    """
    noted: list[int] = []

    def note(number: int, _: object) -> None:
        if noted and number == signal.SIGINT:
            raise KeyboardInterrupt
        noted.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _summary(done: "Reading", saved: Path | None) -> None:
    if done.forced_cuts:
        _say(
            f"the text had {done.forced_cuts} stretches of a million characters without a place "
            "where it can be cut; it was cut there, and the ids at those places are not those of "
            "the whole text"
        )
    if done.finished and not done.new_tokens:
        _say(f"nothing new: these {done.tokens:,} tokens were read before")
        return
    size = 0 if done.state is None else done.state.nbytes
    speed = done.new_tokens / max(done.seconds, 1e-9)
    where = "not kept" if saved is None else f"in {saved}"
    if saved is not None and not done.saved:
        where = "nothing saved yet"
    _say(
        f"{'read' if done.finished else 'interrupted after'} {done.new_tokens:,} tokens in "
        f"{_clock(done.seconds)} ({speed:,.0f} tokens/s), {done.tokens:,} in all; the state is "
        f"{size:,} bytes, {where}"
        + ("" if done.finished or not done.saved else "; the same command goes on")
    )


def _say(text: str) -> None:
    print(f"griffin: {text}", file=sys.stderr, flush=True)


def _clock(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
