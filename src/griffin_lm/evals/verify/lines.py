"""A line of the report: what was looked at, what came out, what was allowed."""

import math
from dataclasses import asdict, dataclass
from typing import Literal

from ...shapes import JSON

Result = Literal["PASS", "FAIL", "info", "not done"]


@dataclass(frozen=True)
class Line:
    """figure: what was measured; limit: what was allowed ("" where there is no limit)."""

    name: str
    result: Result
    figure: str
    limit: str = ""
    note: str = ""

    def to_dict(self) -> JSON:
        """Plain values."""
        return asdict(self)


def judged(name: str, right: bool, figure: str, limit: str = "", note: str = "") -> Line:
    """PASS if `right`, else FAIL."""
    return Line(name, "PASS" if right else "FAIL", figure, limit, note)


def within(name: str, error: float, limit: float, note: str = "") -> Line:
    """PASS where a largest difference is at most its limit; NaN fails."""
    right = not math.isnan(error) and error <= limit
    return judged(name, right, f"{error:.1e}", f"{limit:.1e}", note)


def told(name: str, figure: str, note: str = "") -> Line:
    """A figure that nothing is claimed about."""
    return Line(name, "info", figure, note=note)


def left_out(name: str, why: str) -> Line:
    """A check that could not be made, and why."""
    return Line(name, "not done", "", note=why)
