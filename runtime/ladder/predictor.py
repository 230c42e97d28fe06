"""The choice of a rung for a budget: the most accurate one that holds it with enough confidence.

The mathematics stands in docs/ladder.md. A choice is a look-up and a bisection over thresholds
that were computed before, without torch or numpy: microseconds.
"""

from __future__ import annotations

import math
import threading
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from ...core.errors import UsageError
from .slowdown import SPREADS, Slowdown
from .times import RungTimes, Times

CONFIDENCE = 0.99
MAX_STAIRCASES = 4096
State = tuple[float, int]


@dataclass(frozen=True)
class Staircase:
    """Rungs that are worth choosing for one batch size, each more accurate than the one before.

    `logs`: of the budgets (ms, on the measured machine) from which on each of them holds.
    """

    logs: tuple[float, ...]
    rungs: tuple[int, ...]


def check_confidence(confidence: float) -> None:
    """Raises UsageError."""
    if not 0.0 < confidence < 1.0:
        raise UsageError(f"`confidence` is {confidence}; it must be between 0 and 1.")


class Predictor:
    """Chooses rungs, and learns the slowdown from what answers took."""

    def __init__(self, rungs: Sequence[RungTimes], times: Times | None = None) -> None:
        self.times = times or Times(rungs)
        self.scores = tuple(rung.score for rung in rungs)
        self.slowdown = Slowdown()
        self._staircases: dict[tuple[int, int, float], Staircase] = {}
        self._lock = threading.Lock()
        self._tested_ms: float | None = None  # the last answer, or the last time it rested
        for batch in sorted({size for rung in rungs for size in rung.sizes}):
            for cell in range(len(SPREADS)):
                self._staircase((batch, cell, CONFIDENCE))
        # The most accurate; of equals the faster one.
        self.best = max(range(len(rungs)), key=lambda r: (self.scores[r], -self._first_median(r)))

    @property
    def state(self) -> State:
        """Logarithm of the slowdown believed, and the place of its uncertainty in `SPREADS`."""
        return self.slowdown.state

    def choose(
        self, budget_ms: float, batch: int = 1, confidence: float = CONFIDENCE
    ) -> tuple[int, bool]:
        """The most accurate rung that answers within `budget_ms` with probability `confidence`.

        False beside the fastest rung where none does.
        """
        mean, cell = self.slowdown.state
        key = (batch, cell, confidence)
        stairs = self._staircases.get(key) or self._staircase(key)
        if not budget_ms > 0.0:
            return stairs.rungs[0], False
        step = bisect_right(stairs.logs, math.log(budget_ms) - mean)
        return (stairs.rungs[step - 1], True) if step else (stairs.rungs[0], False)

    def fits(self, rung: int, budget_ms: float, batch: int, confidence: float) -> bool:
        """True if this rung answers within `budget_ms` with probability `confidence`."""
        mean, cell = self.slowdown.state
        limit = self.times.limit_ms(rung, batch, cell, confidence)
        return limit * math.exp(mean) <= budget_ms

    def expected_ms(self, rung: int, batch: int = 1) -> float:
        """The median time of an answer as the machine is now."""
        return self.times.median_ms(rung, batch) * math.exp(self.slowdown.state[0])

    def observe(
        self,
        rung: int,
        batch: int,
        taken_ms: float,
        idle_s: float = 0.0,
        now_ms: float | None = None,
    ) -> None:
        """Learn from an answer of any rung, which ended at `now_ms`. Thread-safe."""
        self._tested_ms = self._tested_ms if now_ms is None else now_ms
        if taken_ms <= 0.0:
            return
        ratio = math.log(taken_ms / self.times.median_ms(rung, batch))
        noise = self.times.noise(rung, batch)
        with self._lock:
            self.slowdown.observe(ratio, noise, idle_s)

    def rest(self, now_ms: float) -> None:
        """Believe less in a slowdown that has let nothing run since it was tested, for it would
        refuse everything for ever. Thread-safe."""
        with self._lock:
            if self._tested_ms is not None:
                self.slowdown.rest((now_ms - self._tested_ms) / 1000.0)
            self._tested_ms = now_ms

    def _staircase(self, key: tuple[int, int, float]) -> Staircase:
        batch, cell, confidence = key
        limits = [
            (self.times.limit_ms(rung, batch, cell, confidence), -score, rung)
            for rung, score in enumerate(self.scores)
        ]
        logs: list[float] = []
        rungs: list[int] = []
        for limit, _, rung in sorted(limits):
            if not rungs or self.scores[rung] > self.scores[rungs[-1]]:
                logs.append(math.log(limit))
                rungs.append(rung)
        if len(self._staircases) >= MAX_STAIRCASES:
            self._staircases.clear()
        return self._staircases.setdefault(key, Staircase(tuple(logs), tuple(rungs)))

    def _first_median(self, rung: int) -> float:
        return self.times.median_ms(rung, self.times.rungs[rung].sizes[0])
