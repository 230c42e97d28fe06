"""Runs that are worth a look by batch size, ways to work off a queue, and what a ms is worth.

All of it depends on the measured times and on the belief about the machine, not on the queue.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

from .times import Times

MAX_DRAINS = 12


class Run(NamedTuple):
    """A rung at a batch size, on the scale of the measured machine: its median, the time it keeps
    with the confidence asked for, its worth, and ms per request in full batches."""

    rung: int
    batch: int
    median: float
    limit: float
    score: float
    pace: float


class RunTable:
    """Runs of `times` by count and `cell`, the place of the slowdown's uncertainty in `SPREADS`."""

    def __init__(self, times: Times, slo_ms: float, confidence: float) -> None:
        self._times, self._slo, self._confidence = times, slo_ms, confidence
        self.sizes = tuple(sorted({size for row in times.rungs for size in row.sizes}))
        self._runs: dict[tuple[int, int], tuple[Run, ...]] = {}  # by count and cell
        self._drains: dict[int, tuple[Run, ...]] = {}  # by cell
        # By cell and a quarter of the slowdown's logarithm.
        self._prices: dict[tuple[int, int], tuple[list[float], list[float]]] = {}

    def run_singly(self) -> None:
        self.sizes = (1,)
        self._drains.clear()
        self._prices.clear()

    def at(self, count: int, cell: int) -> tuple[Run, ...]:
        """Rungs that run `count` at once and are worth it, the most accurate first."""
        key = (count, cell)
        if key not in self._runs:
            runs = [
                self._run(rung, count, cell)
                for rung, row in enumerate(self._times.rungs)
                if count <= row.sizes[-1]
            ]
            self._runs[key] = _undominated(runs, lambda run: (run.median, run.limit))
        return self._runs[key]

    def drains(self, cell: int) -> tuple[Run, ...]:
        """Ways to work off what waits, of every rung; the one with the shortest run first."""
        if cell not in self._drains:
            runs = [run for size in self.sizes for run in self.at(size, cell)]
            self._drains[cell] = _some(_undominated(runs, lambda run: (run.pace, run.limit)))
        return self._drains[cell]

    def price_of_time(self, mean: float, cell: int, rate: float) -> float:
        """Accuracy that a ms of the measured machine is worth to the requests to come. `mean`: of
        the slowdown's logarithm; `rate`: arrivals per ms."""
        if rate <= 0.0:
            return 0.0
        key = (cell, round(mean * 4))
        if key not in self._prices:
            self._prices[key] = _hull(self.drains(cell), self._slo * math.exp(-key[1] / 4))
        paces, prices = self._prices[key]
        return prices[bisect_left(paces, math.exp(-mean) / rate)]

    def _run(self, rung: int, count: int, cell: int) -> Run:
        median = self._times.median_ms(rung, count)
        limit = self._times.limit_ms(rung, count, cell, self._confidence)
        return Run(rung, count, median, limit, self._times.rungs[rung].score, median / count)


def _hull(runs: Sequence[Run], slo: float) -> tuple[list[float], list[float]]:
    """The upper concave hull of accuracy over ms per request: its paces, and the slope up to each.

    A sustained load is answered best by a mix of two neighbors on it, and the slope between them is
    what a ms is worth. Only runs of which two take no longer than `slo` count: a request waits for
    the run before its own. The slope beyond the slowest is 0.
    """
    hull: list[tuple[float, float]] = [(0.0, 0.0)]
    able = [run for run in runs if 2 * run.limit <= slo] or [min(runs, key=lambda r: r.limit)]
    for run in sorted(able, key=lambda run: (run.pace, -run.score)):
        if run.score <= hull[-1][1]:
            continue
        while len(hull) > 1 and _slope(hull[-2], hull[-1]) <= _slope(
            hull[-1], (run.pace, run.score)
        ):
            hull.pop()
        hull.append((run.pace, run.score))
    return [pace for pace, _ in hull[1:]], [*(_slope(a, b) for a, b in pairwise(hull)), 0.0]


def _slope(a: tuple[float, float], b: tuple[float, float]) -> float:
    return (b[1] - a[1]) / (b[0] - a[0])


def _undominated(
    runs: Sequence[Run], costs: Callable[[Run], tuple[float, float]]
) -> tuple[Run, ...]:
    """Without those that cost as much as another in both ways and are not more accurate; the most
    accurate first."""
    kept: list[Run] = []
    for run in sorted(runs, key=lambda run: (-run.score, *costs(run))):
        if not any(all(a <= b for a, b in zip(costs(k), costs(run), strict=True)) for k in kept):
            kept.append(run)
    return tuple(kept)


def _some(runs: Sequence[Run]) -> tuple[Run, ...]:
    """At most MAX_DRAINS of them, the shortest first; the quickest pace is always among them."""
    last = len(runs) - 1
    chosen = {round(i * last / (MAX_DRAINS - 3)) for i in range(MAX_DRAINS - 2)}
    chosen |= {min(range(len(runs)), key=lambda i: runs[i].limit)}
    chosen |= {min(range(len(runs)), key=lambda i: runs[i].pace)}
    return tuple(sorted((runs[i] for i in chosen), key=lambda run: run.limit))
