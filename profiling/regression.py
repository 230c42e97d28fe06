"""Changes of a latency since a record was made, at another time on the same machine.

Samples of two sessions can't be interleaved, and a machine is not the same in two sessions: the
spread within one session says nothing about that. So the model is measured in several runs now, and
the stored value is asked whether it could be one more of them (prediction interval of a normal
variable, at 99 %). A change must also show in the samples themselves (`compare_samples`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain
from statistics import mean, stdev

from ..core.errors import MeasureError
from ..core.records import Comparison
from .statistics import compare_samples, percentile, t_99

MIN_RUNS = 3


def against(
    stored: Sequence[float], runs: Sequence[Sequence[float]], p: float
) -> tuple[Comparison, float]:
    """Stored latency divided by today's (below 1 is slower now), and today's margin (a fraction).

    All samples in ms. Raises MeasureError where a row has too few of them.
    """
    if len(runs) < MIN_RUNS:
        raise MeasureError(f"a comparison needs at least {MIN_RUNS} runs; found {len(runs)}.")
    change = compare_samples(stored, list(chain(*runs)), p)
    logs = [math.log(max(percentile(row, p), 1e-9)) for row in runs]
    n = len(logs)
    margin = t_99(n - 1) * stdev(logs) * math.sqrt(1.0 + 1.0 / n)
    gap = math.log(max(percentile(stored, p), 1e-9)) - mean(logs)
    low, high = math.exp(gap - margin), math.exp(gap + margin)
    low, high = min(low, change.low), max(high, change.high)
    if change.finding == "no significant change" or low <= 1.0 <= high:
        return Comparison(change.speedup, low, high, "no significant change"), math.expm1(margin)
    return Comparison(change.speedup, low, high, change.finding), math.expm1(margin)
