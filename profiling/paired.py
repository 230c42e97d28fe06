"""The interval of a metric's drop between two models on the same examples.

Of right and wrong answers it is exact where McNemar's test is: it holds 0 just where that test does
not reject (Clopper and Pearson 1934 on the examples that one model alone answers), and it is at
least as wide as Tango's score interval (1998, "Equivalence test and confidence interval for the
difference in proportions for the paired-sample design"), which knows that the number of such
examples is itself chance. Other values are drawn again in pairs (Efron 1979).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from .gate import working

CONFIDENCE = 0.95
Z = 1.959964  # of the normal distribution, for that
DRAWS, FEWEST_DRAWS, FEWEST_PAIRS = 1000, 100, 8
WHOLE_SECONDS = 2.0  # for a metric of the whole, which is computed at each draw
Values = NDArray[np.float64]
Places = NDArray[np.int64]


def drop_interval(
    before: Sequence[float] | Values, after: Sequence[float] | Values,
    counts: Sequence[int] | None = None,
) -> tuple[float, float] | None:  # fmt: skip
    """Of the mean of before - after, by example or by batches of `counts` examples.

    None where there are too few of other values than right and wrong to draw from.
    """
    first, second = np.asarray(before, np.float64), np.asarray(after, np.float64)
    if len(first) != len(second) or not len(first):
        return None
    if counts is None and _are_answers(first) and _are_answers(second):
        lost, won = int((first > second).sum()), int((first < second).sum())
        return answers_interval(lost, won, len(first))
    if len(first) < FEWEST_PAIRS or not np.isfinite(first - second).all():
        return None
    weights = np.ones(len(first)) if counts is None else np.asarray(counts, np.float64)
    return _drawn_interval(first - second, weights)


def answers_interval(lost: int, won: int, examples: int) -> tuple[float, float]:
    """Of `examples`, `lost` are answered right by the first model alone, `won` by the second."""
    low = _tango_end(lost, won, examples, Z)
    high = _tango_end(lost, won, examples, -Z)
    if lost + won:
        exact = binomtest(lost, lost + won).proportion_ci(CONFIDENCE)
        share = (lost + won) / examples
        low, high = min(low, (2 * exact.low - 1) * share), max(high, (2 * exact.high - 1) * share)
    return float(low), float(high)


def _are_answers(values: Values) -> bool:
    return bool(((values == 0.0) | (values == 1.0)).all())


def _tango_end(lost: int, won: int, examples: int, z: float) -> float:
    """The difference whose score is `z`."""

    def score(difference: float) -> float:
        b = -lost - won + (2 * examples - lost + won) * difference
        c = -won * difference * (1 - difference)
        rest = (math.sqrt(max(0.0, b * b - 8 * examples * c)) - b) / (4 * examples)
        spread = examples * (2 * rest + difference * (1 - difference))
        return (lost - won - examples * difference) / math.sqrt(max(spread, 1e-12))

    return _falling_root(lambda x: score(x) - z, -1.0 + 1e-9, 1.0 - 1e-9)


def _falling_root(function: Callable[[float], float], low: float, high: float) -> float:
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if function(middle) > 0.0 else (low, middle)
    return 0.5 * (low + high)


def _drawn_interval(differences: Values, weights: Values) -> tuple[float, float]:
    random, count = np.random.default_rng(0), len(differences)
    means = []
    for _ in range(DRAWS):
        rows = random.integers(count, size=count)
        means.append(float(np.average(differences[rows], weights=weights[rows])))
    return _middle(means)


def _middle(values: Sequence[float]) -> tuple[float, float]:
    tail = 50.0 * (1.0 - CONFIDENCE)
    low, high = np.percentile(values, (tail, 100.0 - tail))
    return float(low), float(high)


def whole_interval(
    drop: Callable[[Places], float], examples: int, seconds: float = WHOLE_SECONDS
) -> tuple[float, float] | None:
    """Of a metric of the whole: `drop` is that of the examples at these places.

    None where too few draws fit into the time, or are defined.
    """
    random, drops, end = np.random.default_rng(0), list[float](), working() + seconds
    for _ in range(DRAWS):
        with suppress(Exception):  # of a metric that is not defined on these examples
            drops.append(drop(random.integers(examples, size=examples)))
        if working() > end:
            break
    finite = [one for one in drops if math.isfinite(one)]
    return _middle(finite) if len(finite) >= FEWEST_DRAWS else None
