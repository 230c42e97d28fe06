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
    search.lab.talk.stage("searching")
    smallest = search.smallest()
    search.say_feasible(smallest)
    if search.held(smallest) >= least:
        return [smallest]
    good: list[Trial] = []
    for form in search.forms:
        for problem in search.problems(form):
            good += _halved(search, problem, least, form)
    return sorted(good, key=lambda t: t.latency.value_ms)


def _halved(search: Search, problem: Problem, least: float, form: int) -> list[Trial]:
    fastest, whole = search.measure(problem.fastest(), form), search.measure(problem.whole(), form)
    good: list[Trial] = []
    if whole.failed:
        return good
    fast = fastest.predicted_ms if fastest.failed else fastest.latency.value_ms
    if whole.formats:
        if search.held(whole) < least:
            return good
        good.append(whole)
    slow = whole.latency.value_ms
    while slow > NEAR * fast and search.in_time():
        aim = math.sqrt(fast * slow)
        tried = search.of_problem(form, problem)
        points = [(t.latency.value_ms, t.predicted_ms) for t in tried]
        found = problem.solve(interpolated(points, aim))
        if found is None:
            break
        known = search.known(found.picks, form)
        trial = known or search.measure(found.picks, form)
        # What is known already tells no more than on which side of the aim to go on.
        ms = aim if known or trial.failed else trial.latency.value_ms
        if search.held(trial) < least:
            fast = max(fast, ms)
            continue
        slow = min(slow, ms)
        if trial not in good:
            good.append(trial)
    return good
