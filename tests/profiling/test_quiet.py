from __future__ import annotations

import random
from statistics import mean

import pytest
from modelspeed.profiling.quiet import quiet_ms


def test_one_value_is_all_there_is():
    assert quiet_ms([4.0]) == 4.0


def test_a_value_without_company_is_no_phase():
    assert quiet_ms([3.0, 4.0, 4.05, 4.1, 6.0]) == pytest.approx(4.05)


def test_few_values_need_less_company():
    assert quiet_ms([4.0, 4.1]) == pytest.approx(4.05)
    assert quiet_ms([5.0, 4.0]) == 4.0
    assert quiet_ms([4.0, 5.0, 6.0]) == 4.0


def test_a_machine_that_becomes_faster_is_believed_when_it_stays_so():
    before = [6.0, 6.1, 6.05, 6.0]
    assert quiet_ms([*before, 4.0]) == pytest.approx(6.025)
    assert quiet_ms([*before, 4.0, 4.05, 4.02]) == pytest.approx(4.02)


@pytest.mark.parametrize("count", [3, 10, 60, 300])
def test_it_does_not_sink_with_the_number_of_measurements(count):
    """Noise of 2 %, and half of the run in slow phases of 1.3 to 2x."""
    found = []
    for seed in range(200):
        chance = random.Random(seed)
        row = [10.0 * (1 + chance.gauss(0, 0.01)) for _ in range(count)]
        row += [10.0 * chance.uniform(1.3, 2.0) for _ in range(count)]
        found.append(quiet_ms(row))
    assert mean(found) == pytest.approx(10.0, rel=0.012)
    assert all(9.6 <= value <= 10.4 for value in found)
