"""The targets that the kernels are held to, and what the figures say of each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from . import rounds
from .rounds import Key

Figures = Mapping[str, Mapping[str, Any]]  # name of the file -> its content
LLAMA = {"bf16": "BF16", "int8": "Q8_0", "int4": "Q4_0"}
FAR = 32_768


class Found(NamedTuple):
    """A figure; busy: only measured while other processes disturbed it."""

    value: float
    busy: bool = False


Read = Callable[[Figures], Found | None]


@dataclass(frozen=True)
class Target:
    """name: of the row. beside: what it is measured against. reach, later: the two targets.

    read: the figure, None where it was not measured. most: the figure may be no larger.
    """

    name: str
    beside: str
    reach: float
    later: float | None
    read: Read
    most: bool = False
    form: str = ".2f"

    def reached(self, value: float) -> bool:
        """Whether the first target is met."""
        return value <= self.reach if self.most else value >= self.reach

    def shown(self, value: float) -> str:
        """A value of this row, as the table has it."""
        return format(value, self.form)


def row_of(figures: Figures, file: str, **facts: Any) -> Mapping[str, Any] | None:
    """The first row of a file that has these values."""
    for row in figures.get(file, {}).get("rows", []):
        if all(row.get(name) == value for name, value in facts.items()):
            return row
    return None


def _value(file: str, column: str, **facts: Any) -> Read:
    def read(figures: Figures) -> Found | None:
        row = row_of(figures, file, **facts)
        return None if row is None else Found(row[column], "disturbed" in row)

    return read


def _ratio(file: str, one: Key, other: Key) -> Read:
    def read(figures: Figures) -> Found | None:
        measured = figures.get(file, {}).get("measured", [])
        for busy in (False, True):
            found = rounds.ratio(measured, one, other, disturbed=busy)
            if found is not None:
                return Found(found, busy)
        return None

    return read


def _share(weights: str) -> Read:
    """Of the memory's bandwidth, at batch 1 far into a text, where rings are read too."""
    return _value("decode", "fraction_of_limit", **_ours(weights, 1, FAR))


def _ours(weights: str, batch: int, context: int) -> dict[str, Any]:
    return {"who": "griffin", "weights": weights, "batch": batch, "context": context}


def _over_llama(weights: str, context: int) -> Read:
    one: Key = ("decode", "griffin", weights, 1, context)
    return _ratio("decode", one, ("decode", "llama.cpp", weights, 1, context))


def _prefill_share(length: int) -> Read:
    return _value("prefill", "fraction_of_limit", what="prefill", **_ours("bf16", 1, length))


def _prefill_over(length: int) -> Read:
    """Over llama.cpp's best."""

    def read(figures: Figures) -> Found | None:
        one: Key = ("prefill", "griffin", "bf16", 1, length)
        found = [
            _ratio("prefill", one, ("prefill", "llama.cpp", weights, 1, length))(figures)
            for weights in LLAMA
        ]
        known = [ratio for ratio in found if ratio is not None]
        return min(known) if known else None  # the least ratio is that to the best

    return read


def _prefill_int8(figures: Figures) -> Found | None:
    """Their rounds are not the same ones: medians against medians, as shares of the limit."""
    shares = [
        _value("prefill", "fraction_of_limit", what="prefill", **_ours(weights, 1, 512))(figures)
        for weights in ("int8", "bf16")
    ]
    if shares[0] is None or shares[1] is None:
        return None
    return Found(shares[0].value / shares[1].value, shares[0].busy or shares[1].busy)


def _recurrence(figures: Figures) -> Found | None:
    one: Key = ("prefill", "griffin", "bf16", 1, 512)
    return _ratio("prefill", one, ("rg_lru in a prefill", *one[1:]))(figures)


def _scan(direction: str) -> Read:
    return _value("scan", "fraction_of_limit", what=f"scan {direction}", who="griffin")


def _megabytes(model: str) -> Read:
    def read(figures: Figures) -> Found | None:
        row = row_of(figures, "memory", model=model)
        return None if row is None else Found(row["over_weights"] / 1e6)

    return read


TARGETS = (
    *(
        Target(f"decode, batch 1, {kind}", "read bandwidth", reach, later, _share(kind))
        for kind, reach, later in (("bf16", 0.9, 0.95), ("int8", 0.9, 0.95), ("int4", 0.85, 0.92))
    ),
    *(
        Target(f"the same, empty context, {kind}", f"llama.cpp {LLAMA[kind]}", reach, later, read)
        for kind, reach, later, read in (
            ("bf16", 1.0, 1.0, _over_llama("bf16", 0)),
            ("int8", 1.0, 1.05, _over_llama("int8", 0)),
            ("int4", 0.95, 1.05, _over_llama("int4", 0)),
        )
    ),
    *(
        Target(f"the same, context 32k, {kind}", f"llama.cpp {LLAMA[kind]}", reach, None, read)
        for kind, reach, read in (
            ("bf16", 1.05, _over_llama("bf16", FAR)),
            ("int8", 1.1, _over_llama("int8", FAR)),
            ("int4", 1.25, _over_llama("int4", FAR)),
        )
    ),
    Target(
        "decode, batch 8, int8",
        "ours at batch 1",
        5.0,
        6.0,
        _ratio("decode", ("decode", "griffin", "int8", 8, 0), ("decode", "griffin", "int8", 1, 0)),
    ),
    *(
        Target(f"prefill {n}, bf16", "matrix rate", 0.85, 0.92, _prefill_share(n))
        for n in (512, 2048)
    ),
    *(
        Target(f"prefill {n}, bf16", "llama.cpp's best", 1.05, 1.15, _prefill_over(n))
        for n in (512, 2048)
    ),
    Target("prefill 512, int8", "ours in bf16", 1.5, 1.9, _prefill_int8),
    Target(
        "time a token, counter at 1M",
        "at 2k and more",
        1.02,
        1.01,
        _value("counter", "ratio", what="counter"),
        most=True,
        form=".3f",
    ),
    Target("plain scan, forward", "copying 3 arrays", 0.6, 0.8, _scan("forward")),
    Target("plain scan, backward", "copying 5 arrays", 0.5, 0.7, _scan("backward")),
    Target(
        "RG-LRU in a prefill of 512", "its time", 0.03, None, _recurrence, most=True, form=".1%"
    ),
    *(
        Target(
            f"memory, {what}", "over the weights, MB", 300.0, None, _megabytes(model), True, ".0f"
        )
        for what, model in (
            ("fledgling reads 100k tokens", "fledgling"),
            ("the 2B at 8k tokens", "recurrentgemma-2b"),
        )
    ),
    *(
        Target(
            f"perplexity of fledgling, {kind}",
            "bf16",
            most_of_it,
            None,
            _value("quality", "over_bf16", weights=kind),
            most=True,
            form=".4f",
        )
        for kind, most_of_it in (("int8", 1.003), ("int4", 1.03), ("int4, calibrated", 1.03))
    ),
)
