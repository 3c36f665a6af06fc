"""How hard memo rows are: distance and number of fields grow with what was measured in training."""

import math
from collections import deque
from typing import Any

_ENOUGH = 24  # answers before a bucket is believed
_KEPT = 48  # latest answers that a bucket remembers


class Curriculum:
    """The longest gap and the number of fields now; told of every answer, it raises them.

    One field is learned up to `first_gap`, then the next up to that gap, and once all are there the
    longest gap doubles whenever the longest bucket's accuracy reaches `passing` for every field. A
    bucket holds the gaps from 2^b up to 2^(b+1).
    """

    def __init__(
        self, fields: int = 3, first_gap: int = 128, last_gap: int = 32768, passing: float = 0.87
    ) -> None:
        self.all_fields, self.first_gap, self.last_gap = fields, first_gap, last_gap
        self.passing = passing
        self.fields, self.longest = 1, 8
        self.kept: dict[str, deque[int]] = {}

    def record(self, kind: int, field: int, gap: int, right: bool) -> None:
        """One answer of kind VALUE or NOTHING."""
        key = f"{kind}:{field}:{max(gap, 1).bit_length() - 1}"
        self.kept.setdefault(key, deque(maxlen=_KEPT)).append(int(right))

    def accuracy(self, kind: int, field: int, bucket: int) -> tuple[float, int]:
        """(share of right ones among the latest answers, how many those are)."""
        kept = self.kept.get(f"{kind}:{field}:{bucket}", ())
        return (sum(kept) / len(kept) if kept else math.nan, len(kept))

    def weakest(self) -> int:
        """The field with the lowest mean accuracy over buckets; one just added counts as 0."""
        means: list[float] = []
        for field in range(self.fields):
            found = [self.accuracy(1, field, bucket) for bucket in range(2, 18)]
            shares = [share for share, count in found if count]
            means.append(sum(shares) / len(shares) if shares else 0.0)
        return means.index(min(means))

    def advance(self) -> str:
        """Makes it harder where it has been learned. Returns what changed, or ""."""
        bucket = self.longest.bit_length() - 2  # the upper half of the gaps: longest / 2 and above
        for field in range(self.fields):
            share, count = self.accuracy(1, field, bucket)
            if count < _ENOUGH or share < self.passing:
                return ""
        if self.longest < self.first_gap or self.fields == self.all_fields:
            if self.longest >= self.last_gap:
                return ""
            self.longest *= 2
            return f"longest gap {self.longest}"
        self.fields += 1
        self._forget()
        return f"{self.fields} fields"

    def _forget(self) -> None:
        """A new field disturbs the old ones: measure them again."""
        self.kept.clear()

    def table(self, kind: int) -> str:
        """Accuracy per field and bucket in one line: "name 8:1.00 16:.98 | place 8:.31"."""
        rows: list[str] = []
        for field in range(self.fields):
            cells: list[str] = []
            for bucket in range(2, 18):
                share, count = self.accuracy(kind, field, bucket)
                if count >= 4:
                    cells.append(f"{2**bucket}:{share:.2f}")
            rows.append(" ".join(cells))
        return " | ".join(rows)

    def to_dict(self) -> dict[str, Any]:
        """Everything, in plain values."""
        kept = {key: list(answers) for key, answers in self.kept.items()}
        return {"fields": self.fields, "longest": self.longest, "kept": kept}

    def restore(self, saved: dict[str, Any]) -> None:
        """The inverse of to_dict."""
        self.fields, self.longest = int(saved["fields"]), int(saved["longest"])
        self.kept = {key: deque(answers, maxlen=_KEPT) for key, answers in saved["kept"].items()}
