"""The engine beside the bare loop, and what a session costs on disk, on random weights of a shape.

Contenders take turns in rounds; figures are medians over rounds. HTTP is not in them.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from ...inference import LanguageModel
from ...inference.engine import Engine, Request, RowOptions
from ...shapes import JSON
from ...text.cuts import CutRule
from ...text.stream import LeadingSpace
from ...text.tokenizer import Tokenizer
from ..cpu.ours import random_model, shape, state_at
from .disk import RAW, RENAMED, Disk, first_token

RESUMED = 1_000_000  # tokens that the session that is taken up again has read
FRESH = 16  # tokens of the prompt it is compared with
CONTENDERS = ("bare loop", "engine")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is measured. streams: requests at once; tokens: steps of a measurement."""

    preset: str = "recurrentgemma-2b"
    layers: int = 0
    scale: int = 1
    weights: str = "int8"
    streams: int = 8
    context: int = 32_768
    tokens: int = 8
    rounds: int = 5
    threads: int = 0


class _Numbers(Tokenizer):
    """A vocabulary for random weights: any id is a word."""

    def __init__(self, size: int) -> None:
        super().__init__(
            pieces=[f"w{token} " for token in range(size)],
            specials={},
            bos_id=None,
            eos_id=None,
            pad_id=None,
            leading_space=LeadingSpace.KEEP,
            files={},
        )

    def _encode_text(self, text: str, continues: bool) -> list[int]:
        return [int(word[1:]) for word in text.split()]

    def _text_of(self, token: int) -> str | bytes:
        return self._pieces[token] or ""

    def _find_cuts(self) -> CutRule:
        return CutRule(None, "made for measuring")


def measure(options: Options, progress: Callable[[int, int], None]) -> list[JSON]:
    """Rows: the bare loop and the engine, first tokens, a state on disk."""
    torch.set_num_threads(options.threads or os.cpu_count() or 1)
    config = shape(options.preset, options.layers, options.scale)
    model = random_model(config, options.weights)
    lm = LanguageModel(model, _Numbers(config.vocab))
    bare, engine = _Bare(lm, options), _Engine(lm, options)
    with tempfile.TemporaryDirectory(prefix="griffin", dir=".") as folder:
        disk = Disk(lm, Path(folder), RESUMED)
        seconds = _rounds(lm, options, bare, engine, disk, progress)
    median = {name: statistics.median(taken) for name, taken in seconds.items()}
    shared: JSON = {"weights": options.weights, "batch": options.streams}
    shared["context"] = options.context
    rows: list[JSON] = [
        {
            "what": f"decode, {who}",
            "who": "griffin",
            **shared,
            "tokens_per_s": options.streams * options.tokens / median[who],
            "rounds": seconds[who],
        }
        for who in CONTENDERS
    ]
    pairs = zip(*(seconds[who] for who in CONTENDERS), strict=True)
    rows[1]["fraction_of_bare"] = statistics.median(one / other for one, other in pairs)
    rows += [
        {"what": name, "seconds": median[name], "rounds": taken}
        for name, taken in seconds.items()
        if name not in CONTENDERS
    ]
    return [*rows, {"what": "state", "bytes": disk.size}]


def _rounds(
    lm: LanguageModel,
    options: Options,
    bare: "_Bare",
    engine: "_Engine",
    disk: Disk,
    progress: Callable[[int, int], None],
) -> dict[str, list[float]]:
    """Seconds of each contender in each round."""
    seconds: dict[str, list[float]] = {}
    for number in range(options.rounds):
        for name, run in (
            ("bare loop", bare.steps),
            ("engine", engine.steps),
            ("fresh prompt", lambda: first_token(lm, list(range(FRESH)), None)),
            ("resumed session", disk.first_token),
            ("state save", disk.save),
            (RAW, disk.raw),
            (RENAMED, disk.raw_renamed),
            ("state load", disk.load),
        ):
            seconds.setdefault(name, []).append(run())
        progress(number + 1, options.rounds)
    return seconds


class _Bare:
    """The loop that the engine is compared with: one call after the other, the likeliest token."""

    def __init__(self, lm: LanguageModel, options: Options) -> None:
        self.model, self.count = lm.model, options.tokens
        self.state = state_at(lm.model, options.streams, options.context)
        self.tokens = torch.zeros(options.streams, 1, dtype=torch.int64)

    @torch.no_grad()
    def steps(self) -> float:
        """Seconds for so many steps, after one that is not timed."""
        self._step()
        began = time.perf_counter()
        for _ in range(self.count):
            self._step()
        return time.perf_counter() - began

    def _step(self) -> None:
        logits, self.state = self.model(self.tokens, state=self.state, logits="last", donate=True)
        assert logits is not None
        self.tokens = logits.argmax(-1, keepdim=True)


class _Engine:
    """The engine with as many requests, all of them generating."""

    def __init__(self, lm: LanguageModel, options: Options) -> None:
        self.engine, self.count = Engine(lm, slots=options.streams), options.tokens
        start = state_at(lm.model, 1, options.context)
        request = Request(ids=[1], state=start, options=RowOptions(max_new_tokens=1_000_000))
        for _ in range(options.streams):
            self.engine.submit(request, lambda _: None)
        for _ in range(options.streams + 1):
            self.engine.step()

    def steps(self) -> float:
        """Seconds for so many steps, after one that is not timed."""
        self.engine.step()
        began = time.perf_counter()
        for _ in range(self.count):
            self.engine.step()
        return time.perf_counter() - began
