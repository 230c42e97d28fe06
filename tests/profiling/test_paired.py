"""Intervals of a drop: as McNemar's exact test says, wide enough, and of pairs."""

from __future__ import annotations

import numpy as np
import pytest
from modelspeed.profiling.paired import answers_interval, drop_interval, whole_interval
from scipy.stats import binomtest


@pytest.mark.parametrize("examples", [50, 300])
def test_no_drop_is_outside_just_where_mcnemars_exact_test_rejects_it(examples):
    for lost in range(14):
        for won in range(14):
            low, high = answers_interval(lost, won, examples)
            assert low <= (lost - won) / examples <= high
            chance = not lost + won or binomtest(lost, lost + won).pvalue >= 0.05
            assert (low <= 0.0 <= high) == chance, (lost, won)


def test_what_was_never_seen_is_not_ruled_out():
    low, high = answers_interval(0, 0, 300)
    assert low == pytest.approx(-high) and 0.005 < high < 0.02
    assert answers_interval(0, 0, 30_000)[1] < 0.0002


def test_the_true_drop_is_covered():
    random, covered = np.random.default_rng(0), 0
    for _ in range(400):
        kind = random.choice(3, size=200, p=(0.03, 0.01, 0.96))
        low, high = answers_interval(int((kind == 0).sum()), int((kind == 1).sum()), 200)
        covered += low <= 0.02 <= high
    assert covered >= 0.94 * 400


def test_what_both_models_have_in_common_cancels():
    random = np.random.default_rng(0)
    hard = random.normal(0.0, 10.0, 500)
    low, high = drop_interval(hard, hard - 0.1 + random.normal(0.0, 0.1, 500))
    assert 0.05 < low < 0.1 < high < 0.15


def test_batches_count_by_their_examples():
    before, after = [1.0] * 20, [*([1.0] * 19), 0.0]
    light = drop_interval(before, after, [10] * 19 + [1])
    heavy = drop_interval(before, after, [10] * 20)
    assert light[1] < heavy[1]


@pytest.mark.parametrize(
    ("before", "after"), [([], []), ([0.5], [0.4]), ([1.0], [1.0, 0.0]), ([np.inf] * 9, [1.0] * 9)]
)
def test_where_there_is_nothing_to_draw_from_there_is_no_interval(before, after):
    assert drop_interval(before, after) is None


def test_a_metric_of_the_whole_is_computed_again_at_each_draw():
    random = np.random.default_rng(1)
    before, after = random.random(400) < 0.9, random.random(400) < 0.8
    low, high = whole_interval(lambda rows: before[rows].mean() - after[rows].mean(), 400)
    assert low < before.mean() - after.mean() < high and 0.03 < high - low < 0.2


def test_a_metric_that_is_seldom_defined_has_no_interval():
    def fails(rows):
        raise ValueError("Only one class present in y_true.")

    assert whole_interval(fails, 400) is None
    assert whole_interval(lambda rows: float("nan"), 400) is None
    assert whole_interval(lambda rows: 0.1, 400, seconds=-1.0) is None
