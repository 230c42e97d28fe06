"""The oracle of `benchmarks/ladder.py` against every plan there is, on small loads."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest
from fake_rungs import rung_times
from modelspeed.runtime.ladder.times import Times

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))  # behind `tests/support`
from ladder_oracle import oracle_plan
from ladder_policies import Alert, Fixed, Greedy, SlackFit

TIMES = Times(rung_times())


def best_by_trying(arrivals, slo, place=0, free=0.0):
    """The most accuracy in time, over all ways to drop or batch what is left."""
    if place == len(arrivals):
        return 0.0
    best = best_by_trying(arrivals, slo, place + 1, free)
    for rung, row in enumerate(TIMES.rungs):
        for size in range(1, len(arrivals) - place + 1):
            end = max(free, arrivals[place + size - 1]) + TIMES.median_ms(rung, size)
            if end <= arrivals[place] + slo:
                rest = best_by_trying(arrivals, slo, place + size, end)
                best = max(best, size * row.score + rest)
    return best


@pytest.mark.parametrize("seed", range(6))
def test_the_plan_is_worth_as_much_as_the_best_of_all_plans(seed):
    draw = random.Random(seed)
    arrivals = sorted(draw.uniform(0.0, 12.0) for _ in range(5))
    plan = oracle_plan(TIMES, arrivals, 10.0, lambda ms: 1.0)
    worth = sum(TIMES.rungs[rung].score for rung in plan if rung is not None)
    best = best_by_trying(arrivals, 10.0)
    assert worth <= best + 1e-9
    assert worth == pytest.approx(best, rel=0.01)  # batches between the measured sizes are left out


def test_a_slower_machine_leaves_the_oracle_less():
    arrivals = [2.0 * i for i in range(40)]

    def worth(slowdown):
        plan = oracle_plan(TIMES, arrivals, 10.0, lambda ms: slowdown)
        return sum(TIMES.rungs[rung].score for rung in plan if rung is not None)

    assert worth(3.0) < worth(1.0)


@pytest.mark.parametrize("make", [Greedy, SlackFit, Alert, lambda times: Fixed(times, 1)])
def test_every_peer_answers_a_single_request_that_has_time(make):
    decision = make(TIMES).decide([1000.0], 0.0, 0.0)
    assert (decision.refused, decision.count) == (0, 1)


def test_alert_takes_a_faster_rung_once_it_has_seen_the_machine_slow_down():
    policy, slack = Alert(TIMES), 3.0 * TIMES.median_ms(0, 1)
    before = policy.decide([slack], 0.0, 0.0).rung
    for _ in range(20):
        policy.observe(0, 1, 4.0 * TIMES.median_ms(0, 1))
    assert policy.decide([slack], 0.0, 0.0).rung > before
