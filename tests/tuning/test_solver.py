from __future__ import annotations

from modelspeed.core.records import Latency
from modelspeed.tuning.solver import WINDOW, Bisection


def solver(curve):
    def measure(level):
        value = curve(level)
        return Latency(50.0, value, value * 0.99, value * 1.01)

    return Bisection(measure)


def test_the_lowest_level_that_fits_lands_in_the_window():
    found = solver(lambda level: 10 - 8 * level).solve(5.0)
    assert found is not None
    assert WINDOW * 5.0 < found.latency.high_ms <= 5.0


def test_a_staircase_is_solved_with_its_highest_fitting_step():
    found = solver(lambda level: 10.0 - int(level * 8)).solve(5.5)
    assert found is not None and found.latency.value_ms == 5.0


def test_an_unreachable_budget_is_refused_after_one_trial():
    bisection = solver(lambda level: 10 - level)
    assert bisection.solve(1.0) is None
    assert len(bisection.trials) == 1
