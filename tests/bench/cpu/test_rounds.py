"""Rounds and what is made of them: medians, shares within a round, ratios between contenders."""

import pytest

from griffin_lm.bench.cpu import rounds
from griffin_lm.bench.cpu.rounds import Case
from griffin_lm.errors import DataError


def case(who: str, times: list[float], work: float = 10.0) -> Case:
    facts = {"what": "decode", "who": who, "weights": "bf16", "batch": 1, "context": 0}
    left = iter(times)
    return Case(facts, lambda: next(left), units=2, work=work)


def limits(*values: float):
    left = iter(values)
    return lambda: (next(left), "read bandwidth")


def measured() -> list[dict]:
    """Three rounds in which the machine halves its speed once, and both contenders with it."""
    cases = [case("griffin", [1.0, 2.0, 1.0]), case("llama.cpp", [2.0, 4.0, 4.0])]
    speeds = limits(10, 10, 10, 5, 5, 5, 10, 10, 10)
    found = rounds.measure(cases, speeds, 3, lambda _: None)
    return [one | {"others": 0.0} for one in found]  # whatever else runs beside the tests


def test_a_row_holds_the_median_over_rounds_and_what_it_was_measured_beside() -> None:
    griffin, peer = rounds.rows(measured())
    assert (griffin["who"], peer["who"]) == ("griffin", "llama.cpp")
    assert griffin["tokens_per_s"] == 2.0 and peer["tokens_per_s"] == 0.5
    assert griffin["bytes_per_token"] == 5.0 and griffin["rounds"] == 3
    assert griffin["limit"] == {"is": "read bandwidth", "bytes_per_s": 10}


def test_a_share_of_the_limit_is_taken_within_each_round() -> None:
    griffin, _ = rounds.rows(measured())
    assert griffin["fraction_of_limit"] == 1.0  # in the slow round too


def test_the_limit_is_read_before_and_after_each_contender() -> None:
    [one] = rounds.measure([case("griffin", [1.0])], limits(8, 12), 1, lambda _: None)
    assert one["limit"] == 10


def test_a_ratio_counts_only_rounds_that_both_were_in() -> None:
    all_of_it = measured()
    ours, theirs = (("decode", who, "bf16", 1, 0) for who in ("griffin", "llama.cpp"))
    assert rounds.ratio(all_of_it, ours, theirs) == 2.0
    parted = [m for m in all_of_it if m["who"] == "griffin" or m["round"].endswith("/2")]
    assert rounds.ratio(parted, ours, theirs) == 4.0
    alone = [m for m in all_of_it if m["who"] == "griffin"]
    assert rounds.ratio(alone, ours, theirs) is None


def test_rounds_of_two_runs_add_up() -> None:
    first, second = measured(), measured()
    together = rounds.joined({"measured": first}, second)
    assert rounds.rows(together)[0]["rounds"] == 6
    with pytest.raises(DataError, match="no measurements to add to"):
        rounds.joined({"rows": []}, second)


def test_operations_are_not_called_bytes() -> None:
    [one] = rounds.measure(
        [case("griffin", [1.0])], lambda: (5.0, "matrix rate, fp32"), 1, lambda _: None
    )
    [row] = rounds.rows([one])
    assert row["operations_per_token"] == 5.0 and "bytes_per_token" not in row
    assert row["limit"] == {"is": "matrix rate, fp32", "operations_per_s": 5.0}
