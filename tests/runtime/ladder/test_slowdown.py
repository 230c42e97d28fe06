from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from modelspeed.runtime.ladder.slowdown import MAX_VARIANCE, PRIOR, SPREADS, Slowdown

NOISE = 0.02**2
ratios = st.floats(-3, 3)


def settled(answers=50, seed=0):
    slowdown, draw = Slowdown(), random.Random(seed)
    for _ in range(answers):
        slowdown.observe(draw.gauss(0, 0.02), NOISE)
    return slowdown


def test_before_any_answer_the_machine_is_as_it_was_measured():
    slowdown = Slowdown()
    assert slowdown.factor == 1 and slowdown.spread == pytest.approx(math.sqrt(PRIOR))


@pytest.mark.parametrize("factor", [10, 0.1])
def test_a_single_spike_changes_nothing(factor):
    slowdown = settled()
    before = slowdown.state, slowdown.spread
    slowdown.observe(math.log(factor), NOISE)
    assert (slowdown.state, slowdown.spread) == before
    with_spike, without = slowdown, settled()
    for each in (with_spike, without):
        each.observe(0.01, NOISE)
    assert with_spike.state == without.state


@pytest.mark.parametrize("factor", [2.0, 5.0, 0.5])
def test_a_step_is_believed_after_two_answers(factor):
    slowdown, draw = settled(), random.Random(1)
    for _ in range(2):
        slowdown.observe(math.log(factor) + draw.gauss(0, 0.02), NOISE)
    assert slowdown.factor == pytest.approx(factor, rel=0.1)


def test_two_spikes_of_different_height_are_forgotten_by_the_next_answer():
    slowdown = settled()
    for ratio in (math.log(10), math.log(3), 0.0, 0.0):
        slowdown.observe(ratio, NOISE)
    assert slowdown.factor == pytest.approx(1, rel=0.1)


def test_drift_is_followed():
    slowdown, draw = settled(), random.Random(2)
    for answer in range(200):
        truth = 0.005 * answer
        slowdown.observe(truth + draw.gauss(0, 0.02), NOISE)
        assert abs(slowdown.mean - truth) < 0.1
    assert slowdown.factor == pytest.approx(math.exp(1), rel=0.1)


def test_noise_beyond_the_samples_widens_what_is_believed():
    calm, noisy, draw = settled(400), Slowdown(), random.Random(3)
    for _ in range(400):
        noisy.observe(draw.gauss(0, 0.3), NOISE)
    assert noisy.spread > 5 * calm.spread
    assert noisy.factor == pytest.approx(1, rel=0.3)


def test_frequent_spikes_count_as_noise_in_the_end():
    slowdown = settled()
    for answer in range(400):
        slowdown.observe(1.5 if answer % 3 == 0 else 0.0, NOISE)
    assert slowdown.spread > 0.2


def test_after_a_pause_the_next_answer_counts_for_more():
    at_once, later = settled(), settled()
    at_once.observe(0.05, NOISE)
    later.observe(0.05, NOISE, idle_s=600)
    assert later.mean > at_once.mean


@given(st.lists(ratios, max_size=60))
def test_whatever_comes_it_stays_finite_and_in_bounds(found):
    slowdown = Slowdown()
    for ratio in found:
        slowdown.observe(ratio, NOISE)
        assert math.isfinite(slowdown.mean) and abs(slowdown.mean) <= 3.01
        assert 0 < slowdown.variance <= MAX_VARIANCE
        mean, cell = slowdown.state
        assert mean == slowdown.mean and 0 <= cell < len(SPREADS)
        assert SPREADS[cell] >= min(slowdown.spread, SPREADS[-1]) - 1e-12


def test_a_slowdown_that_nothing_tests_fades_by_half_each_second():
    slowdown = settled()
    for _ in range(5):
        slowdown.observe(math.log(8), NOISE)
    slowdown.rest(1.0)
    assert slowdown.factor == pytest.approx(8**0.5, rel=0.1)
    slowdown.rest(10.0)
    assert slowdown.factor == pytest.approx(1, rel=0.01)
