from __future__ import annotations

import math
import random

import pytest
from modelspeed.profiling.signed_rank import critical, interval


@pytest.mark.parametrize(
    ("n", "alpha", "k"),
    [(6, 0.05, 1), (10, 0.05, 9), (20, 0.05, 53), (30, 0.01, 110), (5, 0.05, 0)],
)
def test_ranks_are_those_of_the_printed_tables(n, alpha, k):
    """Tables give the largest rank sum that is significant, which is k - 1."""
    assert critical(n, alpha) == k


def test_the_middle_of_a_symmetric_row_is_its_center_and_spikes_do_not_move_it():
    row = [0.1 + 0.01 * (i % 5 - 2) for i in range(25)]
    middle, low, high = interval(row, 0.01)
    assert middle == pytest.approx(0.1) and low < 0.1 < high
    assert interval([*row, 50.0], 0.01)[0] == pytest.approx(0.1, abs=0.005)


def test_too_few_differences_say_nothing():
    _, low, high = interval([1.0] * 5, 0.01)
    assert (low, high) == (-math.inf, math.inf)


def test_it_misses_the_center_as_rarely_as_asked():
    missed = 0
    for seed in range(1000):
        chance = random.Random(seed)
        _, low, high = interval([chance.gauss(0, 1) + 0.3 for _ in range(15)], 0.05)
        missed += not low <= 0.3 <= high
    assert 25 <= missed <= 65
