"""Rung and batch of the next run of a stream, from all deadlines that wait. Pure: no clock, no
threads, nothing is run; so simulators and benchmarks ask the same object.

The mathematics stands in docs/ladder.md. SlackFit (arXiv 2312.16733) looks at the most urgent
request alone; here every candidate is judged by what it leaves to the requests behind it.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Protocol

from .predictor import CONFIDENCE, Predictor

HALF_CHANCE = 0.75  # of being in time, between the median and the limit of a run
MAX_EXPECTED = 256  # arrivals that are looked ahead to
MAX_DRAINS = 12
HORIZON = 0.5  # of the SLO: measured in simulations, flat between 0.25 and 1


@dataclass(frozen=True)
class Dispatch:
    """Refuse the `refused` most urgent requests, then run the next `count` on `rung`.

    `count` is 0 where no request is left that could be in time.
    """

    refused: int
    rung: int = 0
    count: int = 0


class Policy(Protocol):
    def decide(self, deadlines: Sequence[float], now: float, rate: float) -> Dispatch:
        """The next run. `deadlines` (ms) of all that wait, the most urgent first, at least one;
        `rate`: arrivals per ms lately."""
        ...

    def admits(self, place: int, slack_ms: float, busy_ms: float) -> bool:
        """True if a request with `slack_ms` can be in time behind `place` others, where the run
        that is on its way takes `busy_ms` more."""
        ...

    def rest(self, idle_s: float) -> None:
        """Believe less in a slowdown that let nothing run for that long."""
        ...

    def run_singly(self) -> None:
        """From now on no two requests together: their outputs can't be told apart."""
        ...


@dataclass(frozen=True)
class Run:
    """A rung at a batch size, on the scale of the measured machine: its median, the time it keeps
    with the confidence asked for, its worth, and ms per request in full batches."""

    rung: int
    count: int
    median: float
    limit: float
    score: float

    @property
    def pace(self) -> float:
        return self.median / self.count


class LookAhead:
    """The run that brings the most expected accuracy in time, over the whole queue and the arrivals
    to be expected within the `horizon`, a part of `slo_ms`."""

    def __init__(
        self,
        predictor: Predictor,
        slo_ms: float,
        confidence: float = CONFIDENCE,
        horizon: float = HORIZON,
    ) -> None:
        self._predictor, self._slo, self._confidence = predictor, slo_ms, confidence
        self._horizon = horizon
        rungs = predictor.times.rungs
        self._sizes = tuple(sorted({size for row in rungs for size in row.sizes}))
        self._runs: dict[tuple[int, int], tuple[Run, ...]] = {}  # by count and cell
        self._drains: dict[int, tuple[Run, ...]] = {}  # by cell
        # By cell and a quarter of the slowdown's logarithm.
        self._prices: dict[tuple[int, int], tuple[list[float], list[float]]] = {}

    def decide(self, deadlines: Sequence[float], now: float, rate: float) -> Dispatch:
        mean, cell = self._predictor.state
        slower = math.exp(mean)
        waiting = len(deadlines)
        fastest = self._drain(cell)[0].median
        hopeless = bisect_left(deadlines, now + fastest * slower)
        if hopeless == waiting:
            return Dispatch(hopeless)
        expected = min(rate * self._slo * self._horizon, MAX_EXPECTED)
        places = _places(hopeless, waiting, self._sizes)
        slacks = [(deadlines[i] - now) / slower for i in places]
        if expected:  # the next ones arrive one by one, and have all of their time then
            places = [*places, waiting, waiting + int(expected)]
            slacks += [(self._slo + 1 / rate) / slower, (self._slo + expected / rate) / slower]
        price = self._price_of_time(mean, cell, rate)
        drains = [
            (run, run.score - price * run.pace, _tightest(places, slacks, run.pace))
            for run in self._drain(cell)
        ]
        top = max(score for _, score, _ in drains)
        best, chosen = -math.inf, Dispatch(hopeless)
        for count in self._counts(waiting - hopeless):
            behind = bisect_left(places, hopeless + count)
            for run in self._at(count, cell):
                start = bisect_left(deadlines, now + run.median * slower, hopeless)
                members = min(count, waiting - start)
                if members < count and start > hopeless:
                    continue  # a smaller run takes those
                late = bisect_left(deadlines, now + run.limit * slower, start) - start
                value = run.score * (members - (1 - HALF_CHANCE) * min(late, members))
                value -= price * run.median
                left = waiting + expected - start - count
                if value + left * top > best:
                    value += _worth_of_rest(run, drains, behind, start + count, left)
                    if value > best:
                        best, chosen = value, Dispatch(start, run.rung, count)
        return chosen

    def admits(self, place: int, slack_ms: float, busy_ms: float) -> bool:
        mean, cell = self._predictor.state
        slack = (slack_ms - busy_ms) * math.exp(-mean)
        return any(place * run.pace + run.limit <= slack for run in self._drain(cell))

    def rest(self, idle_s: float) -> None:
        self._predictor.rest(idle_s)

    def run_singly(self) -> None:
        self._sizes = (1,)
        self._drains.clear()
        self._prices.clear()

    def _price_of_time(self, mean: float, cell: int, rate: float) -> float:
        """Accuracy that a ms of the measured machine is worth to the requests to come."""
        if rate <= 0.0:
            return 0.0
        key = (cell, round(mean * 4))
        if key not in self._prices:
            self._prices[key] = _hull(self._drain(cell), self._slo * math.exp(-key[1] / 4))
        paces, prices = self._prices[key]
        return prices[bisect_left(paces, math.exp(-mean) / rate)]

    def _counts(self, waiting: int) -> list[int]:
        """Batches worth a look: measured sizes, and all that wait if that is fewer."""
        counts = [size for size in self._sizes if size < waiting]
        return [*counts, waiting] if waiting <= self._sizes[-1] else counts

    def _at(self, count: int, cell: int) -> tuple[Run, ...]:
        """Rungs that run `count` at once and are worth it, the most accurate first."""
        key = (count, cell)
        if key not in self._runs:
            times = self._predictor.times
            runs = [
                self._run(rung, count, cell)
                for rung, row in enumerate(times.rungs)
                if count <= row.sizes[-1]
            ]
            self._runs[key] = _undominated(runs, lambda run: (run.median, run.limit))
        return self._runs[key]

    def _drain(self, cell: int) -> tuple[Run, ...]:
        """Ways to work off what waits, of every rung; the one with the shortest run first."""
        if cell not in self._drains:
            runs = [run for size in self._sizes for run in self._at(size, cell)]
            self._drains[cell] = _some(_undominated(runs, lambda run: (run.pace, run.limit)))
        return self._drains[cell]

    def _run(self, rung: int, count: int, cell: int) -> Run:
        times = self._predictor.times
        limit = times.limit_ms(rung, count, cell, self._confidence)
        return Run(rung, count, times.median_ms(rung, count), limit, times.rungs[rung].score)


def _places(first: int, waiting: int, sizes: Sequence[int]) -> list[int]:
    """Places in the queue at which it is looked at: where batches end, and ever fewer beyond."""
    ends = {first + size + side for size in sizes for side in (-1, 0)}
    step = sizes[-1]
    while step < waiting:
        step += max(1, step // 2)
        ends.add(first + step)
    return sorted({first, waiting - 1, *(end for end in ends if end < waiting)})


def _tightest(places: Sequence[int], slacks: Sequence[float], pace: float) -> list[float]:
    """By place: the least slack from there on, less the time that all before it take at `pace`."""
    left = [slack - place * pace for place, slack in zip(places, slacks, strict=True)]
    return list(accumulate(reversed(left), min))[::-1]


def _worth_of_rest(
    run: Run,
    drains: Sequence[tuple[Run, float, Sequence[float]]],
    behind: int,
    served: int,
    left: float,
) -> float:
    """Expected accuracy of the `left` requests after `run`, worked off in the best even way.

    Of requests worked off at one pace as many are lost as the tightest of them is late, over the
    pace.
    """
    best = 0.0
    for drain, score, tightest in drains:
        worth = score * left
        if worth <= best:
            continue
        if behind < len(tightest):
            over = run.limit + drain.limit - served * drain.pace - tightest[behind]
            if over > 0.0:
                worth -= score * over / drain.pace
        best = max(best, worth)
    return best


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
