"""The way to a budget: solve, build, measure, and ask again for what was measured."""

from __future__ import annotations

from typing import Protocol

from .knapsack import Problem
from .target import WINDOW
from .trials import Picks, Trial, interpolated


class Measuring(Protocol):
    """The part of a search that an approach needs."""

    def measure(self, picks: Picks, number_format: int) -> Trial: ...
    def of_problem(self, number_format: int, problem: Problem) -> list[Trial]: ...
    def in_time(self) -> bool: ...


def approach(
    search: Measuring, problem: Problem, budget_ms: float, most: int, number_format: int
) -> None:
    """Measure up to `most` solutions of `problem` until one is in the window below the budget.

    Predictions err otherwise for blocks than for widths, so what this problem's own solutions
    took says best what to ask of it next.
    """
    aim, whole = 0.5 * (1 + WINDOW) * budget_ms, search.measure(problem.whole(), number_format)
    points, tried = search.of_problem(number_format, problem), [whole]
    count = len(tried)  # with those that failed
    low, high = 0.0, whole.predicted_ms  # asking for the one fitted, for the other did not
    for _ in range(2 * most):
        rows = [(t.latency.high_ms, t.predicted_ms) for t in points if not t.failed]
        asked = interpolated(rows, aim) if rows else low
        asked = asked if low < asked < high else 0.5 * (low + high)
        solution = problem.solve(asked)
        if solution is None:  # nothing is predicted to be so fast
            low = asked
            continue
        trial = search.measure(solution.picks, number_format)
        took = trial.latency.high_ms
        if trial.failed:  # nothing is known of it: wider ones are asked for
            count, low = count + 1, asked
            if count > most or not search.in_time():
                return
            continue
        if not any(t is trial for t in tried):
            points, count = (tried := [*tried, trial]), count + 1
        if WINDOW * budget_ms < took <= budget_ms or count > most or not search.in_time():
            return
        low, high = (asked, high) if took <= budget_ms else (low, asked)
