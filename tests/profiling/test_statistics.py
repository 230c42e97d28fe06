from __future__ import annotations

import random

import pytest
from modelspeed.core.errors import MeasureError
from modelspeed.core.records import Comparison, Latency, Target
from modelspeed.profiling.statistics import (
    compare_samples,
    paired_ratio,
    percentile,
    percentile_interval,
    samples_needed,
    t_99,
    verdict,
)


def correlated(seed: int, count: int = 300, ratio: float = 1.0) -> tuple[list[float], list[float]]:
    """Two interleaved rows that share slow drift, bursts and a heavy tail."""
    chance = random.Random(seed)
    state, rows = 0.0, ([], [])
    for _ in range(count // 5):
        state = 0.9 * state + chance.gauss(0, 0.05)
        for row, factor in zip(rows, (ratio, 1.0), strict=True):
            for _ in range(5):
                spike = 3.0 if chance.random() < 0.03 else 0.0
                row.append(factor * (5.0 * (1 + state) + abs(chance.gauss(0, 0.3)) + spike))
    return rows


@pytest.mark.parametrize(("p", "needed"), [(50, 11), (95, 130), (99, 662)])
def test_percentiles_need_the_samples_of_the_fixed_rule(p: float, needed: int) -> None:
    assert samples_needed(p) == needed


@pytest.mark.parametrize(("p", "count"), [(50, 10), (95, 129), (99, 661)])
def test_a_percentile_without_enough_samples_is_refused(p: float, count: int) -> None:
    with pytest.raises(MeasureError, match=f"found {count}"):
        percentile_interval([1.0] * count, p)
    assert percentile_interval([1.0] * (count + 1), p) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("p", [0.0, 100.0, -1.0, float("nan")])
def test_a_percentile_outside_its_range_is_refused(p: float) -> None:
    with pytest.raises(MeasureError, match="between"):
        samples_needed(p)


def test_a_percentile_is_an_order_statistic() -> None:
    samples = [float(i) for i in range(20, 0, -1)]
    assert [percentile(samples, p) for p in (5, 50, 95, 99)] == [1.0, 10.0, 19.0, 20.0]


@pytest.mark.parametrize(("p", "true"), [(50, 0.5), (95, 0.95)])
def test_the_interval_holds_the_true_percentile_in_95_percent_of_cases(
    p: float, true: float
) -> None:
    chance = random.Random(0)
    covered = 0
    for _ in range(400):
        value, low, high = percentile_interval([chance.random() for _ in range(150)], p)
        assert low <= value <= high
        covered += low <= true <= high
    assert 370 <= covered < 400


@pytest.mark.parametrize(("degrees", "t"), [(1, 63.657), (4, 4.604), (29, 2.756), (60, 2.660)])
def test_students_t_is_that_of_the_printed_tables(degrees: int, t: float) -> None:
    assert t_99(degrees) == pytest.approx(t, abs=0.0005)


@pytest.mark.parametrize(("p", "count"), [(50, 15), (50, 300), (95, 300)])
def test_a_model_against_itself_shows_no_significant_change(p: float, count: int) -> None:
    findings = [compare_samples(*correlated(seed, count), p).finding for seed in range(200)]
    assert findings.count("no significant change") >= 194


def test_a_real_change_is_found_through_drift() -> None:
    for seed in range(20):
        faster = compare_samples(*correlated(seed, ratio=1.1), 50)
        assert faster.finding == "faster"
        assert faster.low <= 1.1 <= faster.high
        assert compare_samples(*correlated(seed, ratio=0.9), 50).finding == "slower"


def test_a_change_below_one_percent_is_no_significant_change() -> None:
    result = compare_samples([1.005] * 50, [1.0] * 50, 50)
    assert result.finding == "no significant change"
    assert compare_samples([1.02] * 50, [1.0] * 50, 50).finding == "faster"


def test_the_stated_speedup_is_the_ratio_of_the_stated_latencies() -> None:
    a, b = correlated(1, ratio=2.0)
    assert compare_samples(a, b, 50).speedup == percentile(a, 50) / percentile(b, 50)


def test_rows_of_different_length_are_compared() -> None:
    assert compare_samples([2.0] * 40, [1.0] * 95, 50).finding == "faster"


@pytest.mark.parametrize(
    ("target", "expected"),
    [(5.1, "met"), (4.8, "missed"), (5.0, "inconclusive"), (None, "none"), (5.05, "inconclusive")],
)
def test_a_verdict_needs_the_whole_interval_on_one_side(
    target: float | None, expected: str
) -> None:
    comparison = Comparison(2.0, 1.9, 2.1, "faster")
    assert verdict(Target(ms=target), Latency(50, 5.0, 4.9, 5.05), comparison) == expected


@pytest.mark.parametrize(
    ("wanted", "expected"), [(1.9, "met"), (2.0, "inconclusive"), (2.2, "missed")]
)
def test_a_wanted_speed_up_is_judged_by_the_interval_of_the_ratio(
    wanted: float, expected: str
) -> None:
    comparison = Comparison(2.0, 1.9, 2.1, "faster")
    assert verdict(Target(speedup=wanted), Latency(50, 5.0, 4.9, 5.05), comparison) == expected


def test_the_paired_ratio_ignores_the_smaller_part_of_a_run_in_another_state() -> None:
    a = [4.0 + 0.01 * (i % 7) for i in range(600)] + [8.0] * 200
    b = [2.0 + 0.005 * (i % 7) for i in range(600)] + [3.0] * 200
    ratio, low, high = paired_ratio(a, b, 50)
    assert low <= ratio <= high and ratio == pytest.approx(2.0, abs=0.02)
    assert compare_samples(a, b, 50).high > 2.1
