"""What a step and a prompt cost against the length of what was read (Griffin, section 5)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..inference.loading import DTYPES
from ..models.griffin import build
from ..shapes import JSON
from .architectures import LABELS, Shape, inner_parameters, sized
from .stopwatch import MEASURES, release
from .study import Cell, Done, Line, Panel, Place, Study, Table, results

ALL = ("griffin", "hawk", "lru", "gru", "mamba", "local", "mqa", "llama", "mha")
HEADLINE = ("griffin", "hawk", "mqa", "llama", "mha")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """contexts: tokens read before the steps that are timed; steps: so many, after one that is not.

    prefills: lengths of prompts; chunk: tokens of a prompt that are read at a time.
    prompt, sampled: of the headline protocol; budget: GiB for weights and states together;
    most_rows: the largest batch that is tried. dtype: of weights, activations and caches.
    """

    shape: Shape
    contexts: tuple[int, ...]
    steps: int
    prefills: tuple[int, ...]
    sampled: tuple[int, ...]
    prompt: int = 2048
    chunk: int = 1024
    budget: float = 4.0
    most_rows: int = 64
    dtype: str = "float32"
    architectures: tuple[str, ...] = ALL


_SMALL = Shape(vocab=256, width=64, layers=6, heads=4, window=64, mlp_width=192)
_CPU = Shape(vocab=8192, width=512, layers=12, heads=8, window=1024, mlp_width=1536)
_GPU = Shape(vocab=32_768, width=2048, layers=24, heads=16, window=1024, mlp_width=6144)

SCALES = {
    "tiny": Settings(
        shape=_SMALL,
        contexts=(64, 512),
        steps=2,
        prefills=(64,),
        sampled=(64,),
        prompt=64,
        budget=0.25,
        most_rows=2,
        architectures=("griffin", "mqa"),
    ),
    "smoke": Settings(
        shape=_SMALL,
        contexts=(256, 4096, 65_536),
        steps=5,
        prefills=(256, 2048),
        sampled=(1024, 8192),
        budget=0.25,
        most_rows=8,
    ),
    "cpu": Settings(
        shape=_CPU,
        contexts=(256, 1024, 4096, 16_384, 65_536, 262_144, 1_048_576),
        steps=5,
        prefills=(256, 1024, 4096),
        sampled=(1024, 4096, 16_384, 32_768),
        most_rows=32,
    ),
    "gpu": Settings(
        shape=_GPU,
        contexts=(256, 1024, 4096, 16_384, 65_536, 262_144, 1_048_576),
        steps=30,
        prefills=(256, 1024, 4096, 16_384, 65_536),
        sampled=(1024, 2048, 4096, 8192, 16_384, 32_768),
        budget=128.0,
        most_rows=512,
        dtype="bfloat16",
    ),
}


def plan(settings: Settings, done: Done) -> list[Cell]:
    """A cell for each context, for each length of prompt, for each number of sampled tokens."""
    common: JSON = {
        "shape": vars(settings.shape),
        "architectures": settings.architectures,
        "dtype": settings.dtype,
        "seed": 0,
    }
    cells = [
        Cell(f"decode-{n:07}", {**common, "what": "decode", "tokens": n, "steps": settings.steps})
        for n in settings.contexts
    ]
    headline: JSON = {
        "architectures": [name for name in HEADLINE if name in settings.architectures],
        "what": "sample",
        "prompt": settings.prompt,
        "budget": settings.budget,
        "most_rows": settings.most_rows,
        "steps": settings.steps,
    }
    cells += [Cell(f"sample-{n:07}", common | headline | {"tokens": n}) for n in settings.sampled]
    cells += [
        Cell(
            f"prefill-{n:07}",
            {**common, "what": "prefill", "tokens": n, "chunk": settings.chunk},
        )
        for n in settings.prefills
    ]
    return cells


@torch.inference_mode()
def measure(settings: Settings, cell: Cell, place: Place) -> JSON:
    """{architecture: figures}; {"ended": why} where memory does not suffice."""
    found: JSON = {}
    kind = DTYPES[cell.settings["dtype"]]
    for name in cell.settings["architectures"]:
        model = build(sized(name, settings.shape), 0, place.device, kind)
        found[name] = {
            "parameters": inner_parameters(model.config),
        } | MEASURES[cell.settings["what"]](model, cell.settings, place)
        del model
        release(place.device)
    return found


# ---- what it comes to


def _by_tokens(done: Done, what: str) -> dict[int, JSON]:
    """{tokens: {architecture: figures}} of one kind of cell."""
    return {
        done[name]["settings"]["tokens"]: figures
        for name, figures in sorted(results(done).items())
        if done[name]["settings"]["what"] == what
    }


def _shown(figures: JSON, key: str, form: str) -> str:
    if "ended" in figures:
        return "memory ended"
    return format(figures[key], form) if key in figures else "–"


def _table(title: str, names: Sequence[str], rows: dict[int, JSON], key: str, form: str) -> Table:
    body = [
        [f"{tokens:,}", *(_shown(row.get(name, {}), key, form) for name in names)]
        for tokens, row in rows.items()
    ]
    return Table(title, ["tokens", *(LABELS[name] for name in names)], body)


def tables(settings: Settings, done: Done) -> list[Table]:
    """Time of a step, bytes of a state, the headline protocol, time of a prompt."""
    decode, sample = _by_tokens(done, "decode"), _by_tokens(done, "sample")
    names = settings.architectures
    held = {
        tokens: {name: {"MB": one["state_bytes"] / 1e6} for name, one in row.items()}
        for tokens, row in decode.items()
    }
    few = [name for name in HEADLINE if name in names]
    return [
        _table("Milliseconds of a step, one row, after so many tokens", names, decode, "ms", ".1f"),
        _table(
            "Milliseconds of a step at least, by the memory's bandwidth",
            names,
            decode,
            "least_ms",
            ".1f",
        ),
        _table("Megabytes of one row's state", names, held, "MB", ",.2f"),
        _table("Sampled tokens a second, the largest batch", few, sample, "tokens_per_s", ",.0f"),
        _table("Rows of that batch", few, sample, "rows", "d"),
        _table(
            "Tokens a second of a prompt",
            names,
            _by_tokens(done, "prefill"),
            "tokens_per_s",
            ",.0f",
        ),
    ]


def panels(settings: Settings, done: Done) -> list[Panel]:
    """Time of a step and bytes of the state by what was read; tokens a second."""
    decode, sample = _by_tokens(done, "decode"), _by_tokens(done, "sample")
    names = settings.architectures
    read = "tokens read before the step"
    few = [name for name in HEADLINE if name in names]
    return [
        Panel("A step of one row", read, "milliseconds", _lines(names, decode, "ms"), "xy"),
        Panel("The state of one row", read, "bytes", _lines(names, decode, "state_bytes"), "xy"),
        Panel(
            f"Largest batch, prompt of {settings.prompt:,} tokens",
            "tokens sampled",
            "tokens a second",
            _lines(few, sample, "tokens_per_s"),
            "xy",
        ),
        Panel(
            "Reading a prompt",
            "tokens of the prompt",
            "tokens a second",
            _lines(names, _by_tokens(done, "prefill"), "tokens_per_s"),
        ),
    ]


def _lines(names: Sequence[str], rows: dict[int, JSON], key: str) -> list[Line]:
    lines: list[Line] = []
    for name in names:
        at = [n for n, row in rows.items() if key in row.get(name, {})]
        lines.append(Line(name, at, [rows[n][name][key] for n in at]))
    return lines


FIXED = ("griffin", "hawk", "lru", "gru", "mamba", "local")
GROWING = ("mqa", "llama", "mha")


def verdicts(settings: Settings, done: Done) -> list[str]:
    """Each hypothesis, with the figures that decide it."""
    decode, sample = _by_tokens(done, "decode"), _by_tokens(done, "sample")
    said: list[str] = []
    if (far := _times(decode, 1 << 20, 1024)) and all(name in far for name in FIXED):
        worst = max(far[name] for name in FIXED)
        word = "held" if worst <= 1.15 else "refuted" if worst > 1.3 else "missed, not refuted"
        each = ", ".join(f"{LABELS[name]} {far[name]:.2f}" for name in FIXED)
        said.append(f"1, step after 2^20 over 1,024 tokens, at most 1.15: {word} ({each}).")
    if (far := _times(decode, 1 << 18, 1024)) and all(name in far for name in GROWING):
        word = "held" if min(far[name] for name in GROWING) >= 4 else "refuted"
        each = ", ".join(f"{LABELS[name]} {far[name]:.0f}" for name in GROWING)
        said.append(f"2, step after 2^18 over 1,024 tokens, at least 4: {word} ({each}).")
    said += _state_verdict(decode)
    low, high = 1024, 32_768
    if low in sample and high in sample:
        kept = {
            name: sample[high][name]["tokens_per_s"] / sample[low][name]["tokens_per_s"]
            for name in ("griffin", "hawk", "mqa")
        }
        flat = min(kept["griffin"], kept["hawk"]) >= 0.85 and kept["mqa"] < 0.5
        each = ", ".join(f"{LABELS[name]} {share:.2f}" for name, share in kept.items())
        ahead = sample[low]["griffin"]["tokens_per_s"] / sample[low]["mqa"]["tokens_per_s"]
        said += [
            f"4, throughput at 32k over 1k sampled: {'held' if flat else 'refuted'} ({each}).",
            f"4, Griffin over MQA at 1k sampled, at most 1.5: "
            f"{'held' if ahead <= 1.5 else 'refuted'} ({ahead:.2f}).",
        ]
    return said


def _state_verdict(decode: dict[int, JSON]) -> list[str]:
    """Hypothesis 3: bytes of a state, from where windows are full."""
    full, middle, late = 4096, 1 << 18, 1 << 20
    if not {full, middle, late} <= set(decode):
        return []
    sizes = {
        name: [decode[n][name]["state_bytes"] for n in (full, middle, late)]
        for name in (*FIXED, *GROWING)
        if name in decode[late]
    }
    if len(sizes) < len(FIXED) + len(GROWING):
        return []
    constant = all(len(set(sizes[name])) == 1 for name in FIXED)
    straight = all(
        (size[2] - size[1]) * (middle - full) == (size[1] - size[0]) * (late - middle)
        for size in (sizes[name] for name in GROWING)
    )
    ended = "ended" in decode[late]["mha"]
    word = "held" if constant and straight and ended else "refuted"
    grown = ", ".join(f"{LABELS[name]} {sizes[name][2] / sizes[name][0]:.0f}" for name in GROWING)
    return [
        f"3, bytes of the state after 2^20 over 4,096 tokens: {word} (the six "
        f"{'the same' if constant else 'not all the same'}; {grown} times, "
        f"{'on' if straight else 'not on'} a straight line; MHA's "
        f"{'did not fit' if ended else 'fitted'})."
    ]


def _times(decode: dict[int, JSON], late: int, early: int) -> dict[str, float]:
    """By architecture, how many times the early step's time the late one takes."""
    if late not in decode or early not in decode:
        return {}
    return {
        name: figures["ms"] / decode[early][name]["ms"]
        for name, figures in decode[late].items()
        if "ms" in figures
    }


STUDY = Study(
    title="Length: what a step costs after a long text",
    question=(
        "Does the time of a token, and the memory that a sequence holds, depend on how much was "
        "read before?"
    ),
    setup="""\
Random weights of equal non-embedding parameters (within 1 %). *A step*: one row, greedy, after so
many tokens; the median of several. What was read before is not read for this: rings, caches and
recurrent states are filled with random numbers, on which time does not depend. *At least*: the
bytes of weights and state over the rate at which one pass over a large array reads, measured
beside it; no step can be faster, and a better kernel would come nearer. *Memory ended*: the state
alone is larger than nine tenths of the memory that was free. *The headline protocol* of the
RecurrentGemma report, in small: a prompt of 2k tokens, so many sampled, by the largest batch
whose weights and final states fit a budget (or `most_rows`); its time is Simpson's rule over
steps timed at the beginning, the middle and the end, since a step's cost is a straight line in
what was read. *A prompt*: random tokens read in chunks with the state carried; the better of two
readings. The architectures of a cell are measured one after the other.""",
    beside="""\
- RecurrentGemma report (2404.07839), section 3: about 6,000 tokens/s sampled from a 2k prompt,
  the same at every length, on one TPUv5e (2B) or TPUv4 (9B), where Gemma's falls; its bars are
  not given in numbers. Prompts: about 40,000 tokens/s (2B), 12,000 (9B).
- Griffin (2402.19427), section 5 and figure 4, 1B models at batch 16: latency of Hawk and Griffin
  below MQA's, the gap growing with length; throughput of Hawk > Griffin > MQA. Curves without
  numbers.""",
    limits="""\
The models are far smaller than those of the papers, so weights weigh less and caches weigh more
beside them: where two curves cross moves with size, batch and window; that one is flat and the
other is not does not. Random weights say nothing about quality. "Llama-shaped" is Llama 3's block
at this size in this code, not Llama's own software; no cache is quantised, shared or paged. A
prompt's speed depends on kernels as much as on architecture: Mamba's scan had no kernel of its own
on a CPU when scale cpu was measured (2026-11-26); it has one now.""",
    scales=SCALES,
    plan=plan,
    measure=measure,
    tables=tables,
    panels=panels,
    verdicts=verdicts,
)
