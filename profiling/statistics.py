"""Percentiles with honest intervals, and comparisons that survive a noisy machine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise

from ..core.errors import MeasureError
from ..core.quantile import quantile
from ..core.records import Comparison, Latency, Target, Verdict

NEGLIGIBLE = 0.01  # a change below 1 % is not reported as one
OVERSTATED, UNDERSTATED = 0.5, 0.1  # of the logarithm of a slowdown
MAX_CHUNKS = 30


@lru_cache(maxsize=64)
def samples_needed(p: float) -> int:
    """Fewest samples for which percentile `p` (0..100, exclusive) may be stated.

    With 99 % confidence at least two samples lie beyond the percentile (Wilks 1942, second order):
    11 for p50, 130 for p95, 662 for p99.
    """
    _check_percentile(p)
    q = max(p, 100.0 - p) / 100.0
    n = 2
    while n * q ** (n - 1) - (n - 1) * q**n > 0.01:
        n += 1
    return n


def percentile(samples: Sequence[float], p: float) -> float:
    """The order statistic at rank ceil(n * p / 100)."""
    return quantile(sorted(samples), p / 100.0)


def percentile_interval(samples: Sequence[float], p: float) -> tuple[float, float, float]:
    """Value, low and high end of the 95 % interval of percentile `p`, free of any distribution.

    Binomial order statistics (Conover, Practical Nonparametric Statistics, 3.2). Raises
    MeasureError when there are too few samples.
    """
    needed = samples_needed(p)
    if len(samples) < needed:
        raise MeasureError(
            f"The percentile `{p:g}` needs at least {needed} samples; found {len(samples)}. "
            "Allow more time, or ask for `50`."
        )
    ordered = sorted(samples)
    low, high = _ranks(len(ordered), p / 100.0)
    return quantile(ordered, p / 100.0), ordered[low - 1], ordered[high - 1]


@lru_cache(maxsize=64)
def t_99(degrees: int) -> float:
    """Student's t at 99 %, two-sided, for so many degrees of freedom.

    99 and not 95 %: at 95 % one in twenty comparisons of a model with itself would claim a change.
    """
    from scipy.special import stdtrit  # a quarter of a second that `--help` need not wait for

    return float(stdtrit(degrees, 0.995))


def half_width(value: float, low: float, high: float) -> float:
    """Relative half width (fraction) of an interval."""
    return (high - low) / (2.0 * value) if value > 0 else 0.0


def compare_samples(
    baseline_samples: Sequence[float], candidate_samples: Sequence[float], percentile: float
) -> Comparison:
    """Speed-up (baseline / candidate) at `percentile`, with its 99 % interval.

    Both sample rows are cut at the same places into up to 30 chunks. Where they were measured
    interleaved, drift and bursts hit both halves of a pair alike and cancel in the ratio. The
    interval is Student's t over the log ratios, widened by what correlation between neighboring
    chunks remains. A change whose interval holds 1, or below 1 %, is "no significant change".
    """
    for samples in (baseline_samples, candidate_samples):
        percentile_interval(samples, percentile)  # refuses too few
    tail = min(percentile, 100.0 - percentile) / 100.0
    size = max(2, math.ceil(1.0 / tail)) if tail < 0.5 else 2
    shortest = min(len(baseline_samples), len(candidate_samples))
    chunks = max(2, min(MAX_CHUNKS, shortest // size))
    ratios = [
        math.log(_positive(a) / _positive(b))
        for a, b in zip(
            _chunk_percentiles(baseline_samples, chunks, percentile),
            _chunk_percentiles(candidate_samples, chunks, percentile),
            strict=True,
        )
    ]
    center, margin = _t_interval(ratios)
    # The stated ratio is that of the two stated latencies, so that a reader's division agrees.
    speedup = _positive(quantile(sorted(baseline_samples), percentile / 100.0)) / _positive(
        quantile(sorted(candidate_samples), percentile / 100.0)
    )
    low = min(math.exp(center - margin), speedup)
    high = max(math.exp(center + margin), speedup)
    if low <= 1.0 <= high or abs(speedup - 1.0) < NEGLIGIBLE:
        return Comparison(speedup, low, high, "no significant change")
    return Comparison(speedup, low, high, "faster" if speedup > 1.0 else "slower")


def widened(comparison: Comparison, slowdown: float) -> Comparison:
    """A comparison made while the original was `slowdown` times as slow as on the quiet machine.

    The ratio cancels what hits both sides alike. Busy cores and slow synchronizations of threads
    hit the original harder than a variant of fewer, larger kernels (1.78 times as slow beside 1.25
    was measured), so the gain may be overstated by up to about half of the slowdown's logarithm,
    and understated by less.
    """
    slow = max(1.0, slowdown)
    low, high = comparison.low / slow**OVERSTATED, comparison.high * slow**UNDERSTATED
    finding = comparison.finding if low > 1.0 or high < 1.0 else "no significant change"
    return replace(comparison, low=low, high=high, finding=finding)


def paired_ratio(
    baseline_samples: Sequence[float], candidate_samples: Sequence[float], percentile: float
) -> tuple[float, float, float]:
    """Median of the ratios (baseline / candidate) of interleaved chunks, with its 95 % interval.

    Unlike the mean of `compare_samples` it ignores the smaller part of a run in which the machine
    was in another state. For the search; a verdict is taken from `compare_samples`.
    """
    tail = min(percentile, 100.0 - percentile) / 100.0
    shortest = min(len(baseline_samples), len(candidate_samples))
    chunks = min(MAX_CHUNKS, shortest // max(2, math.ceil(1.0 / tail)))
    if chunks < samples_needed(50.0):
        comparison = compare_samples(baseline_samples, candidate_samples, percentile)
        return comparison.speedup, comparison.low, comparison.high
    rows = (
        _chunk_percentiles(baseline_samples, chunks, percentile),
        _chunk_percentiles(candidate_samples, chunks, percentile),
    )
    return percentile_interval([a / _positive(b) for a, b in zip(*rows, strict=True)], 50.0)


def verdict(target: Target, latency: Latency, comparison: Comparison) -> Verdict:
    """`met` only with the whole interval on the right side of the target, `missed` with none.

    For a wanted speed-up the interval is that of the ratio to the original, both measured
    interleaved, so that a machine whose clock changes can't decide it.
    """
    if target.speedup is not None:
        if comparison.low >= target.speedup:
            return "met"
        return "missed" if comparison.high < target.speedup else "inconclusive"
    if target.ms is None:
        return "none"
    if latency.high_ms < target.ms:
        return "met"
    return "missed" if latency.low_ms > target.ms else "inconclusive"


def _check_percentile(p: float) -> None:
    # 99.9 already needs 6,636 samples; beyond it no bounded run can answer.
    if not 0.1 <= p <= 99.9:
        raise MeasureError(f"`percentile` is {p:g}; it must be between 0.1 and 99.9.")


def _positive(value: float) -> float:
    return max(value, 1e-9)


@lru_cache(maxsize=512)
def _ranks(n: int, q: float) -> tuple[int, int]:
    """1-based ranks whose samples hold the quantile `q` with 95 % probability."""
    low, high, below = 1, n, 0.0
    for k in range(n):
        chance = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
        below += math.exp(chance + k * math.log(q) + (n - k) * math.log1p(-q))
        if below <= 0.025:
            low = k + 1
        if below >= 0.975:
            high = k + 1
            break
    return low, high


def _chunk_percentiles(samples: Sequence[float], chunks: int, p: float) -> list[float]:
    cuts = [len(samples) * i // chunks for i in range(chunks + 1)]
    return [percentile(samples[a:b], p) for a, b in pairwise(cuts)]


def _t_interval(values: Sequence[float]) -> tuple[float, float]:
    n = len(values)
    mean = math.fsum(values) / n
    deviations = [v - mean for v in values]
    square = math.fsum(d * d for d in deviations)
    if square == 0.0:
        return mean, 0.0
    lagged = math.fsum(a * b for a, b in pairwise(deviations))
    # Effective sample size of a first-order autoregressive row; negative correlation is not used
    # to narrow the interval.
    correlation = min(0.9, max(0.0, lagged / square))
    effective = max(4.0, n * (1.0 - correlation) / (1.0 + correlation))
    error = math.sqrt(square / (n - 1) / effective)
    return mean, t_99(max(1, int(effective) - 1)) * error
