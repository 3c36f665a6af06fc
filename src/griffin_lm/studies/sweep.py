"""A sweep of peak rates on one seed, then more seeds at the best rate."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..shapes import JSON
from .study import Cell, Done, of_kind


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """rates: ascending, each `factor` times the one before; seeds: the first one sweeps.

    extend: steps, at most, by which the grid grows where its best lies at an end.
    """

    rates: tuple[float, ...]
    factor: float
    seeds: tuple[int, ...]
    extend: int = 2

    def cells(self, done: Done, name: str, settings: JSON, final: JSON | None = None) -> list[Cell]:
        """What is known to be wanted. name, settings: of the cells but for rate and seed.

        A cell's figures have "score", the less the better. final: settings in which the cells at
        the best rate differ from those of the sweep; None: in none, and the first seed is among
        them already.
        """
        first = self.seeds[0]
        swept = [self._cell(name, settings, rate, first) for rate in self.rates]
        scores = self._scores(done, settings)
        if any(cell.name not in done for cell in swept):
            return swept
        rates = sorted({*self.rates, *scores})
        for _ in range(self.extend):
            best = self.best(done, settings)
            if best is None or best not in (rates[0], rates[-1]) or len(rates) >= self._limit:
                break
            beyond = best * self.factor if best == rates[-1] else best / self.factor
            cell = self._cell(name, settings, beyond, first)
            swept.append(cell)
            if cell.name not in done:
                return swept
            rates = sorted({*rates, _round(beyond)})
            if "failed" in done[cell.name]:
                break
        best = self.best(done, settings)
        if best is None:
            return swept
        wanted, label = (settings, name) if final is None else (settings | final, f"{name}-final")
        return swept + [self._cell(label, wanted, best, seed) for seed in self.seeds]

    @property
    def _limit(self) -> int:
        return len(self.rates) + self.extend

    def best(self, done: Done, settings: JSON) -> float | None:
        """The rate with the least score on the first seed; of equal ones, that of fewest steps.

        None where none came to an end.
        """
        scores = self._scores(done, settings)
        return min(scores, key=lambda rate: scores[rate]) if scores else None

    def rates_tried(self, done: Done, settings: JSON) -> list[float]:
        """On the first seed, those that failed included."""
        return sorted(cell["rate"] for cell in _like(done, settings, self.seeds[0]))

    def _scores(self, done: Done, settings: JSON) -> dict[float, tuple[float, int]]:
        found = of_kind(done, **settings, seed=self.seeds[0])
        return {
            cell["rate"]: (figures["score"], figures.get("steps", 0)) for cell, figures in found
        }

    def _cell(self, name: str, settings: JSON, rate: float, seed: int) -> Cell:
        rate = _round(rate)
        return Cell(f"{name}-rate{rate:g}-seed{seed}", {**settings, "rate": rate, "seed": seed})


def at_best(
    done: Done, sweep: Sweep, settings: JSON, final: JSON | None = None
) -> Sequence[tuple[JSON, JSON]]:
    """(settings, figures) of every seed at the best rate."""
    best = sweep.best(done, settings)
    return [] if best is None else of_kind(done, **settings | (final or {}), rate=best)


def is_swept(done: Done, sweep: Sweep, settings: JSON) -> bool:
    """Whether every rate of the grid was tried: before that its best says little."""
    return len(sweep.rates_tried(done, settings)) >= len(sweep.rates)


def rate_said(done: Done, sweep: Sweep, settings: JSON) -> str:
    """The best rate, and whether it lies at an edge of what was tried."""
    best, tried = sweep.best(done, settings), sweep.rates_tried(done, settings)
    if best is None:
        return "–"
    if len(tried) < len(sweep.rates):
        return f"{best:g}, {len(tried)} of {len(sweep.rates)} tried yet"
    if len(tried) == 1:
        return f"{best:g}, not swept"
    return f"{best:g}{', at an edge' if best in (tried[0], tried[-1]) else ''}"


def _like(done: Done, settings: JSON, seed: int) -> list[JSON]:
    """Settings of cells that have these, failed ones too: a rate that failed was tried."""
    wanted = settings | {"seed": seed}
    return [
        record["settings"]
        for record in done.values()
        if all(record["settings"].get(key) == value for key, value in wanted.items())
    ]


def _round(rate: float) -> float:
    """Three digits, so that a rate has one name."""
    return float(f"{rate:.3g}")
