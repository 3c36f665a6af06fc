"""`griffin bench train`: training speed against the matrix rate, and against others' models."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...errors import ConfigError, DataError
from ..machine import machine
from .cases import Case, cases
from .contestants import Contestant, contestants
from .parts import parts_of_a_step
from .rounds import CLOCKS, measure_case

__all__ = ["Case", "Contestant", "Options", "cases", "measure", "merged"]


@dataclass(frozen=True)
class Options:
    """only: names of cases, all where empty. scale: "full", or "toy" for a test of seconds.

    peers: transformers' models in the same rounds. rounds: of a case. bf16: everyone in bf16 as
    well (the matrix rate is the better of bf16 and fp32 either way). clock: "wall", or "processor"
    on a machine that does other work too, with one thread. seconds: of a case, after which no
    further round begins; 0: no limit.
    """

    only: tuple[str, ...] = ()
    scale: str = "full"
    peers: bool = False
    rounds: int = 3
    bf16: bool = False
    compile: bool = True
    compile_peers: bool = False
    parts: bool = True
    clock: str = "wall"
    seconds: float = 0.0


def measure(
    options: Options, say: Callable[[str], None], rate_seconds: float = 0.5
) -> dict[str, Any]:
    """The figures: {"machine", "rows", "parts"}; say: told what was found as it goes.

    rate_seconds: spent on the matrix rate, twice a round.

    Raises ConfigError for an unknown case or clock, MissingExtra where peers are wanted and not
    there.
    """
    if options.clock not in CLOCKS:
        raise ConfigError(f"clock must be {' or '.join(CLOCKS)}, not {options.clock!r}")
    if options.clock == "processor" and torch.get_num_threads() > 1:
        raise ConfigError("processor time is for one thread: set OMP_NUM_THREADS=1")
    rows: list[dict[str, Any]] = []
    parts: list[dict[str, Any]] = []
    for case in cases(options.scale, options.only):
        taking_part = contestants(
            case, options.peers, options.bf16, options.compile, options.compile_peers
        )
        found = measure_case(
            case, taking_part, options.rounds, say, rate_seconds, options.clock, options.seconds
        )
        rows += found
        if options.parts and case.parts:
            ours = [row for row in found if row["who"].startswith("griffin")]
            best = max(ours, key=lambda row: row["tokens_per_s"])["weights"]
            one = next(one for one in taking_part if one.weights == best)  # ours come first
            parts.append(parts_of_a_step(case, one))
    facts = machine() | {"threads": torch.get_num_threads()}
    return {"machine": facts, "rows": rows, "parts": parts}


def merged(file: Path, now: dict[str, Any]) -> dict[str, Any]:
    """Those of a file and these: what was measured again replaces what was measured before.

    "earlier": the commands that measured what stays.
    Raises DataError for a file of something else, or of another machine.
    """
    try:
        before: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        other = before["machine"] != now["machine"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file} holds no figures ({error!r}); name another") from error
    if other:
        raise DataError(f"{file} was measured on another machine; name another file")
    again = {row["what"] for row in now["rows"]}
    kept = [row for row in before["rows"] if row["what"] not in again]
    parts = [part for part in before.get("parts", []) if part["what"] not in again]
    order = {name: place for place, name in enumerate(case.name for case in cases("full", ()))}
    rows = sorted([*kept, *now["rows"]], key=lambda row: order.get(row["case"], len(order)))
    earlier = (
        [*before.get("earlier", []), before["command"]] if kept and "command" in before else []
    )
    found = {"rows": rows, "parts": [*parts, *now["parts"]]}
    return before | now | found | {"earlier": [one for one in earlier if one != now.get("command")]}
