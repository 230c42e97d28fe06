"""The dual of the search: the least latency whose accuracy keeps to a limit."""

from __future__ import annotations

import math

from .knapsack import Problem
from .search import Search
from .trials import Trial, interpolated

NEAR = 1.05


def fastest_within(search: Search, least: float) -> list[Trial]:
    """Trials whose held-out metric is at least that, the fastest first, by halving the range.

    Latencies are halved on their logarithm between the narrowest and the whole.
    """
    search.lab.progress.stage("searching")
    smallest = search.smallest()
    search.say_feasible(smallest)
    if search.held_out_score(smallest) >= least:
        return [smallest]
    good: list[Trial] = []
    for number_format in search.number_formats:
        for problem in search.problems(number_format):
            good += _halved(search, problem, least, number_format)
    return sorted(good, key=lambda t: t.latency.value_ms)


def _halved(search: Search, problem: Problem, least: float, number_format: int) -> list[Trial]:
    fastest, whole = (
        search.measure(problem.fastest(), number_format),
        search.measure(problem.whole(), number_format),
    )
    good: list[Trial] = []
    if whole.failed:
        return good
    fast = fastest.predicted_ms if fastest.failed else fastest.latency.value_ms
    if whole.formats:
        if search.held_out_score(whole) < least:
            return good
        good.append(whole)
    slow = whole.latency.value_ms
    while slow > NEAR * fast and search.in_time():
        aim = math.sqrt(fast * slow)
        tried = search.of_problem(number_format, problem)
        points = [(t.latency.value_ms, t.predicted_ms) for t in tried]
        solution = problem.solve(interpolated(points, aim))
        if solution is None:
            break
        known = search.known(solution.picks, number_format)
        trial = known or search.measure(solution.picks, number_format)
        # What is known already tells no more than on which side of the aim to go on.
        ms = aim if known or trial.failed else trial.latency.value_ms
        if search.held_out_score(trial) < least:
            fast = max(fast, ms)
            continue
        slow = min(slow, ms)
        if trial not in good:
            good.append(trial)
    return good
