"""The policy that looks ahead, as it is described: every run with every way to work off the rest.

Nothing is computed beforehand and nothing is passed over, so it is slow; `LookAhead` decides the
same.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

from modelspeed.runtime.ladder.best_run import HALF_CHANCE
from modelspeed.runtime.ladder.policy import HORIZON, MAX_EXPECTED, Dispatch
from modelspeed.runtime.ladder.predictor import CONFIDENCE, Predictor
from modelspeed.runtime.ladder.runs import Run, RunTable


class PlainLookAhead:
    def __init__(
        self,
        predictor: Predictor,
        slo_ms: float,
        confidence: float = CONFIDENCE,
        horizon: float = HORIZON,
    ) -> None:
        self._predictor, self._slo, self._horizon = predictor, slo_ms, horizon
        self._runs = RunTable(predictor.times, slo_ms, confidence)

    def run_singly(self) -> None:
        self._runs.run_singly()

    def decide(self, deadlines: Sequence[float], now: float, rate: float) -> Dispatch:
        mean, cell = self._predictor.state
        slower = math.exp(mean)
        waiting = len(deadlines)
        fastest = self._runs.drains(cell)[0].median
        hopeless = bisect_left(deadlines, now + fastest * slower)
        if hopeless == waiting:
            return Dispatch(hopeless)
        expected = min(rate * self._slo * self._horizon, MAX_EXPECTED)
        places = places_of(hopeless, waiting, self._runs.sizes)
        slacks = [(deadlines[i] - now) / slower for i in places]
        if expected:  # the next ones arrive one by one, and have all of their time then
            places = [*places, waiting, waiting + int(expected)]
            slacks += [(self._slo + 1 / rate) / slower, (self._slo + expected / rate) / slower]
        price = self._runs.price_of_time(mean, cell, rate)
        drains = [
            (run, run.score - price * run.pace, tightest(places, slacks, run.pace))
            for run in self._runs.drains(cell)
        ]
        top = max(score for _, score, _ in drains)
        best, chosen = -math.inf, Dispatch(hopeless)
        for count in self._counts(waiting - hopeless):
            behind = bisect_left(places, hopeless + count)
            for run in self._runs.at(count, cell):
                start = bisect_left(deadlines, now + run.median * slower, hopeless)
                members = min(count, waiting - start)
                if members < count and start > hopeless:
                    continue  # a smaller run takes those
                late = bisect_left(deadlines, now + run.limit * slower, start) - start
                value = run.score * (members - (1 - HALF_CHANCE) * min(late, members))
                value -= price * run.median
                left = waiting + expected - start - count
                if value + left * top > best:
                    value += worth_of_rest(run, drains, behind, start + count, left)
                    if value > best:
                        best, chosen = value, Dispatch(start, run.rung, count)
        return chosen

    def _counts(self, waiting: int) -> list[int]:
        sizes = self._runs.sizes
        counts = [size for size in sizes if size < waiting]
        return [*counts, waiting] if waiting <= sizes[-1] else counts


def places_of(first: int, waiting: int, sizes: Sequence[int]) -> list[int]:
    """Places in the queue at which it is looked at: where batches end, and ever fewer beyond."""
    ends = {first + size + side for size in sizes for side in (-1, 0)}
    step = sizes[-1]
    while step < waiting:
        step += max(1, step // 2)
        ends.add(first + step)
    return sorted({first, waiting - 1, *(end for end in ends if end < waiting)})


def tightest(places: Sequence[int], slacks: Sequence[float], pace: float) -> list[float]:
    """By place: the least slack from there on, less the time that all before it take at `pace`."""
    left = [slack - place * pace for place, slack in zip(places, slacks, strict=True)]
    return list(accumulate(reversed(left), min))[::-1]


def worth_of_rest(
    run: Run,
    drains: Sequence[tuple[Run, float, Sequence[float]]],
    behind: int,
    served: int,
    left: float,
) -> float:
    """Expected accuracy of the `left` requests after `run`, worked off in the best even way."""
    best = 0.0
    for drain, score, tight in drains:
        worth = score * left
        if worth <= best:
            continue
        if behind < len(tight):
            over = run.limit + drain.limit - served * drain.pace - tight[behind]
            if over > 0.0:
                worth -= score * over / drain.pace
        best = max(best, worth)
    return best
