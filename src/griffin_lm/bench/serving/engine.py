"""`griffin bench serve`: the engine beside the bare loop, and what a session costs on disk.

Random weights of a shape. Contenders take turns in rounds; figures are medians over rounds. HTTP is
not in them.
"""

import os
import secrets
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from ..inference import LanguageModel
from ..inference.engine import Engine, Request, RowOptions
from ..models import State
from ..shapes import JSON
from ..text.cuts import CutRule
from ..text.stream import LeadingSpace
from ..text.tokenizer import Tokenizer
from .cpu.ours import random_model, shape, state_at
from .machine import machine

RESUMED = 1_000_000  # tokens that the session that is taken up again has read
FRESH = 16  # tokens of the prompt it is compared with


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


def measure(options: Options, progress: Callable[[int, int], None]) -> JSON:
    """All figures: {"machine", "rows"}."""
    torch.set_num_threads(options.threads or os.cpu_count() or 1)
    config = shape(options.preset, options.layers, options.scale)
    model = random_model(config, options.weights)
    lm = LanguageModel(model, _Numbers(config.vocab))
    bare, engine = _Bare(lm, options), _Engine(lm, options)
    with tempfile.TemporaryDirectory(prefix="griffin", dir=".") as folder:
        disk = _Disk(lm, Path(folder))
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
        for who in ("bare loop", "engine")
    ]
    pairs = zip(seconds["bare loop"], seconds["engine"], strict=True)
    rows[1]["fraction_of_bare"] = statistics.median(one / other for one, other in pairs)
    for name in ("fresh prompt", "resumed session", "state save", "raw write and fsync"):
        rows.append({"what": name, "seconds": median[name], "rounds": seconds[name]})
    rows.append(
        {"what": "state load", "seconds": median["state load"], "rounds": seconds["state load"]}
    )
    return {
        "machine": machine(),
        "options": vars(options),
        "state_bytes": disk.size,
        "rows": rows,
    }


def _rounds(
    lm: LanguageModel,
    options: Options,
    bare: "_Bare",
    engine: "_Engine",
    disk: "_Disk",
    progress: Callable[[int, int], None],
) -> dict[str, list[float]]:
    """Seconds of each contender in each round."""
    seconds: dict[str, list[float]] = {}
    for number in range(options.rounds):
        for name, run in (
            ("bare loop", bare.steps),
            ("engine", engine.steps),
            ("fresh prompt", lambda: _first_token(lm, list(range(FRESH)), None)),
            ("resumed session", disk.first_token),
            ("state save", disk.save),
            ("raw write and fsync", disk.raw),
            ("state load", disk.load),
        ):
            seconds.setdefault(name, []).append(run())
        progress(number + 1, options.rounds)
    return seconds


def table(figures: JSON) -> str:
    """The figures as lines to be read."""
    lines = [f"state of a sequence: {figures['state_bytes'] / 1e6:.2f} MB in its file"]
    for row in figures["rows"]:
        if "tokens_per_s" in row:
            share = row.get("fraction_of_bare")
            tail = f", {share:.3f} of the bare loop" if share is not None else ""
            lines.append(f"{row['what']}: {row['tokens_per_s']:.2f} tokens/s{tail}")
        else:
            lines.append(f"{row['what']}: {1000 * row['seconds']:.1f} ms")
    by_name = {row["what"]: row.get("seconds") for row in figures["rows"]}
    ratio = by_name["resumed session"] / by_name["fresh prompt"]
    lines.append(f"first token, resumed from disk at {RESUMED:,} over fresh: {ratio:.3f}")
    return "\n".join(lines)


def page(figures: JSON, command: str) -> str:
    """The figures as a page of docs/results, with what was to be reached."""
    options, machine = figures["options"], figures["machine"]
    ms = {row["what"]: 1000 * row["seconds"] for row in figures["rows"] if "seconds" in row}
    bare, engine = figures["rows"][:2]
    ratio, raw = ms["resumed session"] / ms["fresh prompt"], ms["raw write and fsync"]
    rows = [
        ("bare batched loop, tokens/s", f"{bare['tokens_per_s']:.2f}", ""),
        ("engine, tokens/s", f"{engine['tokens_per_s']:.2f}", ""),
        ("engine over the bare loop", f"{engine['fraction_of_bare']:.3f}", ">= 0.92"),
        ("first token of a fresh prompt, ms", f"{ms['fresh prompt']:.1f}", ""),
        ("first token of a resumed session, ms", f"{ms['resumed session']:.1f}", ""),
        ("resumed over fresh", f"{ratio:.3f}", "<= 1.2"),
        ("state in its file, MB", f"{figures['state_bytes'] / 1e6:.2f}", "<= 17.3"),
        ("write and fsync of as many bytes, ms", f"{raw:.1f}", ""),
        ("state saved, ms", f"{ms['state save']:.1f}", f"<= {raw + 15:.1f} (that and 15 ms)"),
        ("state loaded, ms", f"{ms['state load']:.1f}", "<= 30"),
    ]
    table = "\n".join(f"| {what} | {value} | {wanted} |" for what, value, wanted in rows)
    return (
        "# Serving\n\n"
        f"`{command}`: random {options['weights']} weights of {options['preset']}, "
        f"{options['streams']} requests that have read {options['context']:,} tokens each, "
        f"{options['tokens']} steps a measurement, medians of {options['rounds']} rounds in "
        f"which all contenders take turns; {machine['processor']}, {machine['cores']} cores, "
        f"PyTorch {machine['PyTorch']}. A fresh prompt has {FRESH} tokens; the session taken up "
        f"again has read {RESUMED:,} and comes from its file. HTTP is not in these figures: the "
        "server's own delay a token, and peers, are not measured yet. Saving adds checksums, a "
        "copy and the folder's own fsync to the bare write.\n\n"
        f"| | measured | to reach |\n|---|--:|--:|\n{table}\n"
    )


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


class _Disk:
    """A session that has read a million tokens, on disk."""

    def __init__(self, lm: LanguageModel, folder: Path) -> None:
        self.lm, self.folder = lm, folder
        self.file = folder / "head.safetensors"
        self.state = state_at(lm.model, 1, RESUMED).with_pending([1])
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

    def load(self) -> float:
        """Seconds to load, from the system's cache of files."""
        began = time.perf_counter()
        State.load(self.file, self.lm)
        return time.perf_counter() - began

    def first_token(self) -> float:
        """Seconds from the file to the first token."""
        began = time.perf_counter()
        state = State.load(self.file, self.lm)
        return time.perf_counter() - began + _first_token(self.lm, [], state)


def _first_token(lm: LanguageModel, ids: list[int], state: State | None) -> float:
    engine = Engine(lm, slots=1)
    began = time.perf_counter()
    options = RowOptions(max_new_tokens=1)
    engine.submit(Request(ids=ids, state=state, options=options), lambda _: None)
    engine.run_until_idle()
    return time.perf_counter() - began
