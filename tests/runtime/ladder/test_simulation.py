"""Streams in virtual time, on rungs of known latencies."""

from __future__ import annotations

import pytest
from fake_rungs import SCORES, rung_times
from modelspeed.runtime.ladder.arrivals import bursts, poisson
from modelspeed.runtime.ladder.simulation import simulate_stream

RUNGS = rung_times()


@pytest.mark.parametrize("replicas", [1, 3])
def test_each_request_ends_once(replicas):
    times = bursts(50.0, 2000.0, 0.5, 4.0)
    found = simulate_stream(RUNGS, times, 20.0, replicas=replicas)
    assert found.in_time + found.late + found.refused == found.requests == len(times)
    assert sum(found.answers) == found.in_time + found.late


def test_a_light_load_gets_the_top_rung_and_all_in_time():
    found = simulate_stream(RUNGS, poisson(20.0, 20.0), 50.0)
    assert found.attainment > 0.999 and found.accuracy > SCORES[0] - 0.005


def test_a_load_beyond_the_top_rung_is_held_by_lower_ones():
    times = poisson(300.0, 5.0)
    ladder, top = (simulate_stream(r, times, 25.0) for r in (RUNGS, RUNGS[:1]))
    assert ladder.attainment > 0.995 > top.attainment
    assert SCORES[-1] < ladder.accuracy < SCORES[0]


def test_more_machines_answer_better_and_a_slow_one_worse():
    times = poisson(400.0, 5.0)
    one, two = (simulate_stream(RUNGS, times, 25.0, replicas=n) for n in (1, 2))
    slow = simulate_stream(RUNGS, times, 25.0, slowdown=2.0)
    worth = [f.accuracy * f.attainment for f in (slow, one, two)]
    assert worth == sorted(worth) and worth[0] < worth[2]


def test_the_same_seed_gives_the_same_result():
    times = poisson(300.0, 1.0)
    assert simulate_stream(RUNGS, times, 25.0) == simulate_stream(RUNGS, times, 25.0)
