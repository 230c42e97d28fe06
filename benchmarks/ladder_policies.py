"""Policies of others for `benchmarks/ladder.py`, in the place of modelspeed's in the same stream.

Each sees the queue that modelspeed's sees, in order of deadlines, and may refuse what even the
fastest run can't answer in time any more; their papers refuse nothing, which would only make them
later.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from modelspeed.runtime.ladder.policy import Dispatch
from modelspeed.runtime.ladder.times import Times

BUCKETS = 16


class Peer:
    """What they share: nothing is refused at the door, and nothing is learned."""

    def __init__(self, times: Times) -> None:
        self.times = times
        self.scores = [rung.score for rung in times.rungs]

    def decide(self, deadlines: Sequence[float], now: float, rate: float) -> Dispatch:
        gone = bisect_left(deadlines, now + self.fastest_ms())
        if gone == len(deadlines):
            return Dispatch(gone)
        rung, count = self.choice(deadlines[gone] - now, len(deadlines) - gone)
        return Dispatch(gone, rung, count)

    def fastest_ms(self) -> float:
        return min(self.times.median_ms(rung, 1) for rung in range(len(self.scores)))

    def choice(self, slack_ms: float, waiting: int) -> tuple[int, int]:
        """(rung, batch) where the most urgent of `waiting` requests has `slack_ms`."""
        raise NotImplementedError

    def admits(self, place: int, slack_ms: float, busy_ms: float) -> bool:
        return True

    def rest(self, now: float) -> None:
        """Nothing is refused at the door, so nothing stands still."""

    def run_singly(self) -> None:
        raise NotImplementedError("the benchmark's outputs have a row for each example")

    def observe(self, rung: int, batch: int, taken_ms: float) -> None:
        """What a run took."""


class Fixed(Peer):
    """One rung for all, with the largest batch that its most urgent request bears."""

    def __init__(self, times: Times, rung: int) -> None:
        super().__init__(times)
        self._rung = rung

    def fastest_ms(self) -> float:
        return self.times.median_ms(self._rung, 1)

    def choice(self, slack_ms: float, waiting: int) -> tuple[int, int]:
        count = min(waiting, self.times.rungs[self._rung].sizes[-1])
        while count > 1 and self.times.median_ms(self._rung, count) > slack_ms:
            count -= 1
        return self._rung, count


class Greedy(Peer):
    """The most accurate rung whose mean latency fits, for as many as wait."""

    def choice(self, slack_ms: float, waiting: int) -> tuple[int, int]:
        largest = min(rung.sizes[-1] for rung in self.times.rungs)
        count = min(waiting, largest)
        rungs = range(len(self.scores))
        fitting = [rung for rung in rungs if self._mean_ms(rung, count) <= slack_ms]
        if fitting:
            return max(fitting, key=lambda rung: self.scores[rung]), count
        return min(rungs, key=lambda rung: self._mean_ms(rung, count)), count

    def _mean_ms(self, rung: int, count: int) -> float:
        row = self.times.rungs[rung]
        near = row.sizes[min(bisect_left(row.sizes, count), len(row.sizes) - 1)]
        samples = row.samples_ms[near]
        drawn = math.fsum(samples) / len(samples)
        return drawn * self.times.median_ms(rung, count) / self.times.median_ms(rung, near)


@dataclass(frozen=True)
class Choice:
    rung: int
    batch: int
    ms: float


class SlackFit(Peer):
    """SuperServe, arXiv 2312.16733, section 4: latencies of all (subnet, batch) in buckets of equal
    width; the bucket below the slack of the most urgent request, and of it the largest batch, of
    equal batches the most accurate."""

    def __init__(self, times: Times) -> None:
        super().__init__(times)
        choices = [
            Choice(rung, batch, times.median_ms(rung, batch))
            for rung, row in enumerate(times.rungs)
            for batch in row.sizes
        ]
        self._low = min(choice.ms for choice in choices)
        self._width = (max(choice.ms for choice in choices) - self._low) / BUCKETS or 1.0
        self._buckets: list[list[Choice]] = [[] for _ in range(BUCKETS)]
        for choice in choices:
            self._buckets[self._place(choice.ms)].append(choice)

    def choice(self, slack_ms: float, waiting: int) -> tuple[int, int]:
        for bucket in reversed(self._buckets[: self._place(slack_ms) + 1]):
            fitting = [choice for choice in bucket if choice.ms <= slack_ms]
            if fitting:
                best = max(fitting, key=lambda c: (c.batch, self.scores[c.rung]))
                return best.rung, min(best.batch, waiting)
        fastest = min(range(len(self.scores)), key=lambda rung: self.times.median_ms(rung, 1))
        return fastest, 1

    def _place(self, ms: float) -> int:
        return max(0, min(BUCKETS - 1, int((ms - self._low) / self._width)))


class Alert(Peer):
    """ALERT, arXiv 1911.00119, section 3: the model with the highest expected accuracy for one
    input, where a global slowdown is normal with mean and variance from a Kalman filter. It knows
    of no batches."""

    NOISE, FIRST, FORGET = 0.001, 0.1, 0.3  # R, Q(0) and alpha of the paper

    def __init__(self, times: Times) -> None:
        super().__init__(times)
        self._mean, self._variance, self._gain, self._process = 1.0, 0.1, 0.5, self.FIRST
        self._error = 0.0

    def choice(self, slack_ms: float, waiting: int) -> tuple[int, int]:
        rungs = range(len(self.scores))
        best = max(rungs, key=lambda rung: (self._expected(rung, slack_ms), self.scores[rung]))
        return best, 1

    def observe(self, rung: int, batch: int, taken_ms: float) -> None:
        ratio = taken_ms / self.times.median_ms(rung, batch)
        moved = (self._gain * self._error) ** 2
        self._process = max(self.FIRST, self.FORGET * self._process + (1 - self.FORGET) * moved)
        prior = (1 - self._gain) * self._variance + self._process
        self._error = ratio - self._mean
        self._gain = prior / (prior + self.NOISE)
        self._mean += self._gain * self._error
        self._variance = prior

    def _expected(self, rung: int, slack_ms: float) -> float:
        off = slack_ms / self.times.median_ms(rung, 1) - self._mean
        chance = 0.5 + 0.5 * math.erf(off / math.sqrt(2.0 * self._variance))
        return chance * self.scores[rung]
