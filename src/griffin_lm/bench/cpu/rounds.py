"""Measurements in rounds: every contender in each, the limit read again before and after it.

The machine's speed moves by itself, so a share of the limit and a ratio to a peer are taken within
a round; rows hold medians over rounds. Measurements are kept raw, so rounds of several runs add up.
"""

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ...errors import DataError
from ...shapes import JSON
from . import quiet

Key = tuple[str, str, str, int, int]
TRIES = 3
KEYS = ("what", "who", "weights", "batch", "context")
Say = Callable[[str], None]


@dataclass(frozen=True)
class Case:
    """One thing to measure in every round.

    facts: what identifies it (KEYS) and whatever else a row should say. run: one measurement,
    in seconds. units: tokens that it takes. work: bytes or operations in it, of the limit's kind.
    """

    facts: Mapping[str, Any]
    run: Callable[[], float]
    units: int
    work: float


def measure(
    cases: Sequence[Case],
    limit: Callable[[], tuple[float, str]],
    rounds: int,
    say: Say,
    patience: float = 0.0,
) -> list[JSON]:
    """Raw measurements of every case in every round. limit: work a second, and its name.

    patience: seconds to wait at most, before each, for other processes to rest. A measurement that
    they disturbed is made again, TRIES times at most; the least disturbed one counts.
    """
    measured: list[JSON] = []
    for number in range(rounds):
        label = f"{datetime.now().isoformat(timespec='seconds')}/{number}"
        before, name = limit()
        for case in cases:
            seconds, others = _undisturbed(case.run, patience)
            after, name = limit()
            measured.append(
                {
                    **case.facts,
                    "round": label,
                    "units": case.units,
                    "seconds": seconds,
                    "others": others,
                    "work": case.work,
                    "limit": (before + after) / 2,
                    "limit_is": name,
                }
            )
            before = after
            share = case.work / seconds / measured[-1]["limit"]
            say(f"{number + 1}/{rounds} {_words(case.facts)}: {_speed(case, seconds)}, {share:.2f}")
    return measured


def _undisturbed(run: Callable[[], float], patience: float) -> tuple[float, float]:
    """Seconds, and the share of all cores that others had meanwhile."""
    best = (0.0, 2.0)
    for _ in range(TRIES):
        if patience:
            quiet.wait(patience)
        with quiet.Others() as others:
            seconds = run()
        if others.share < best[1]:
            best = (seconds, others.share)
        if others.share <= quiet.DISTURBED or not patience:
            break
    return best


def _words(facts: Mapping[str, Any]) -> str:
    return " ".join(str(facts[key]) for key in KEYS if key in facts)


def _speed(case: Case, seconds: float) -> str:
    return f"{case.units / seconds:.2f} a second"


def rows(measured: Iterable[Mapping[str, Any]]) -> list[JSON]:
    """A row per contender and case: medians over its rounds.

    tokens_per_s, bytes_per_token (of a decode), fraction_of_limit, and the limit itself. Rounds
    that others disturbed count only where there are none but such; then the row says `disturbed`.
    """
    made: list[JSON] = []
    for key, found in _grouped(measured).items():
        calm = [one for one in found if one.get("others", 0.0) <= quiet.DISTURBED]
        disturbed, found = not calm, calm or found
        last = found[-1]
        facts = {name: value for name, value in last.items() if name not in _RAW}
        row = dict(zip(KEYS, key, strict=True)) | facts
        row["tokens_per_s"] = statistics.median(m["units"] / m["seconds"] for m in found)
        unit = "bytes" if "bandwidth" in last["limit_is"] else "operations"
        row[f"{unit}_per_token"] = last["work"] / last["units"]
        row["fraction_of_limit"] = statistics.median(
            m["work"] / m["seconds"] / m["limit"] for m in found
        )
        row["limit"] = {
            "is": last["limit_is"],
            f"{unit}_per_s": statistics.median(m["limit"] for m in found),
        }
        row["rounds"] = len(found)
        if disturbed:
            row["disturbed"] = statistics.median(one["others"] for one in found)
        made.append(row)
    return made


_RAW = (*KEYS, "round", "units", "seconds", "work", "limit", "limit_is", "others")


def _grouped(measured: Iterable[Mapping[str, Any]]) -> dict[Key, list[Mapping[str, Any]]]:
    groups: dict[Key, list[Mapping[str, Any]]] = {}
    for one in measured:
        key: Key = tuple(one[name] for name in KEYS)
        groups.setdefault(key, []).append(one)
    return groups


def ratio(
    measured: Iterable[Mapping[str, Any]], one: Key, other: Key, disturbed: bool = False
) -> float | None:
    """How many times as fast one is as another: the median over rounds of both.

    disturbed: also over rounds that others disturbed. None where there is no such round.
    """
    limit = 1.0 if disturbed else quiet.DISTURBED
    groups = _grouped(m for m in measured if m.get("others", 0.0) <= limit)
    speeds = [
        {m["round"]: m["units"] / m["seconds"] for m in groups.get(key, [])} for key in (one, other)
    ]
    common = [speeds[0][label] / speeds[1][label] for label in speeds[0] if label in speeds[1]]
    return statistics.median(common) if common else None


def joined(earlier: Mapping[str, Any], measured: Sequence[JSON]) -> list[JSON]:
    """The measurements of an earlier file and these. Raises DataError for a file without any."""
    try:
        before = list(earlier["measured"])
        _ = [[one[name] for name in _RAW if name != "others"] for one in before]
    except (KeyError, TypeError) as error:
        raise DataError(f"--append: that file has no measurements to add to ({error!r})") from error
    return [*before, *measured]


def keys(figures: Mapping[str, Any]) -> Iterator[Key]:
    """The keys of the rows."""
    for row in figures["rows"]:
        yield tuple(row[name] for name in KEYS)
