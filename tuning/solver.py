"""Choosing what to remove. The seam: an allocator answers one level with units to drop.

Today: one global level over importance-ranked units. The knapsack of the design takes its place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from ..core.records import Latency

T = TypeVar("T")
MAX_TRIALS = 10
# The upper end of the interval is wanted in this part of the target.
WINDOW = 0.95


class Allocator(Protocol):
    def at_level(self, level: float) -> dict[str, list[int]]:
        """Units to drop by group, for a level from 0 (nothing) to 1 (all that may go)."""


@dataclass
class Trial:
    """One level that was built and measured."""

    level: float
    latency: Latency


@dataclass
class Bisection:
    """Smallest level whose measured upper bound is within the budget (ms).

    Latency falls with the level only roughly, so the best feasible trial is kept, not the last.
    """

    measure: Callable[[float], Latency]
    trials: list[Trial] = field(default_factory=list)
    in_time: Callable[[], bool] = lambda: True

    def solve(self, budget_ms: float) -> Trial | None:
        """The feasible trial of the lowest level, or None where even level 1 is too slow."""
        low, high = 0.0, 1.0
        if self._at(1.0).latency.high_ms > budget_ms:
            return None
        for _ in range(MAX_TRIALS):
            best = self._best(budget_ms)
            if best is not None:
                high = best.level
            slow = [
                t.level for t in self.trials if t.latency.high_ms > budget_ms and t.level < high
            ]
            low = max(slow, default=0.0)
            good = best is not None and best.latency.high_ms > WINDOW * budget_ms
            if good or high - low < 0.01 or not self.in_time():
                break
            self._at(self._next(low, high, budget_ms))
        return self._best(budget_ms)

    def known(self, budget_ms: float) -> float | None:
        """The level that the trials made so far give for a budget, without measuring."""
        best = self._best(budget_ms)
        good = best is not None and best.latency.high_ms > WINDOW * budget_ms
        return best.level if best is not None and good else None

    def _next(self, low: float, high: float, budget_ms: float) -> float:
        """Interpolate on the measured latencies (regula falsi), held off the ends."""
        slow, fast = self._at(low).latency, self._at(high).latency
        gap = slow.high_ms - fast.high_ms
        share = (slow.high_ms - 0.975 * budget_ms) / gap if gap > 0 else 0.5
        return low + (high - low) * min(0.85, max(0.15, share))

    def _at(self, level: float) -> Trial:
        for trial in self.trials:
            if trial.level == level:
                return trial
        trial = Trial(level, self.measure(level))
        self.trials.append(trial)
        return trial

    def _best(self, budget_ms: float) -> Trial | None:
        fitting = [t for t in self.trials if t.latency.high_ms <= budget_ms]
        return min(fitting, key=lambda t: t.level, default=None)
