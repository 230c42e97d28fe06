"""Rung and batch of the next run of a stream, from all deadlines that wait. Pure: no clock, no
threads, nothing is run; so simulators and benchmarks ask the same object.

The mathematics stands in docs/ladder.md. SlackFit (arXiv 2312.16733) looks at the most urgent
request alone; here every candidate is judged by what it leaves to the requests behind it.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from .best_run import best_run
from .predictor import CONFIDENCE, Predictor
from .priced_runs import PricedRuns
from .runs import RunTable

MAX_EXPECTED = 256  # arrivals that are looked ahead to
HORIZON = 0.5  # of the SLO: measured in simulations, flat between 0.25 and 1
MAX_PRICES = 256  # of which the tables are kept
ROUNDING = 1e-9  # of the best score: what differs by less is compared exactly


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

    def rest(self, now: float) -> None:
        """Believe less in what refuses everything, since nothing runs."""
        ...

    def run_singly(self) -> None:
        """From now on no two requests together: their outputs can't be told apart."""
        ...


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
        self._predictor, self._slo, self._horizon = predictor, slo_ms, horizon
        self._table = RunTable(predictor.times, slo_ms, confidence)
        self._priced: dict[tuple[int, float], PricedRuns] = {}  # by cell and price of time
        self._rounding = ROUNDING * max(map(abs, predictor.scores))

    def decide(self, deadlines: Sequence[float], now: float, rate: float) -> Dispatch:
        mean, cell = self._predictor.state
        slower = math.exp(mean)
        waiting = len(deadlines)
        first = bisect_left(deadlines, now + self._table.drains(cell)[0].median * slower)
        if first == waiting:
            return Dispatch(first)
        expected = min(rate * self._slo * self._horizon, MAX_EXPECTED)
        priced = self._priced_runs(mean, cell, rate)
        places = [first + place for place in priced.places(waiting - first)]
        seen = [(place, (deadlines[place] - now) / slower) for place in reversed(places)]
        if expected:  # the next ones arrive one by one, and have all of their time then
            last = waiting + int(expected), (self._slo + expected / rate) / slower
            seen = [last, (waiting, (self._slo + 1 / rate) / slower), *seen]
        queue = deadlines, now, slower, first, waiting + expected, seen
        return Dispatch(*best_run(queue, priced.options(waiting - first), self._rounding))

    def admits(self, place: int, slack_ms: float, busy_ms: float) -> bool:
        mean, cell = self._predictor.state
        slack = (slack_ms - busy_ms) * math.exp(-mean)
        return any(place * run.pace + run.limit <= slack for run in self._table.drains(cell))

    def rest(self, now: float) -> None:
        self._predictor.rest(now)

    def run_singly(self) -> None:
        self._table.run_singly()
        self._priced.clear()

    def _priced_runs(self, mean: float, cell: int, rate: float) -> PricedRuns:
        key = (cell, self._table.price_of_time(mean, cell, rate))
        found = self._priced.get(key)
        if found is None:
            if len(self._priced) >= MAX_PRICES:
                self._priced.clear()
            found = self._priced[key] = PricedRuns(self._table, *key)
        return found
