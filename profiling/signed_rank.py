"""Wilcoxon's signed-rank test, and the interval that it gives for the middle of paired differences.

Under the hypothesis that two runs are alike, swapping them in a round whose order was drawn at
random changes nothing: each difference has either sign with the same chance, whatever the machine
did meanwhile (Fisher's randomization argument). The test is exact for that, with drift, spikes and
correlated neighbors. Interval: Hodges & Lehmann 1963; Hollander, Wolfe & Chicken 2014, 3.1 to 3.3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from statistics import median


def interval(differences: Sequence[float], alpha: float) -> tuple[float, float, float]:
    """Middle (Hodges-Lehmann) of the differences with the ends of its two-sided interval.

    The interval misses with a chance of at most `alpha`; it is infinite where there are too few
    differences to say anything at that level.
    """
    means = sorted(
        (a + b) / 2 for i, a in enumerate(differences) for b in differences[i:]
    )  # Walsh averages
    middle = median(means)
    rank = critical(len(differences), alpha)
    if rank < 1:
        return middle, -math.inf, math.inf
    return middle, means[rank - 1], means[-rank]


@lru_cache(maxsize=256)
def critical(n: int, alpha: float) -> int:
    """Largest k for which at most `alpha`/2 of all sign patterns have a rank sum below k; 0: none.

    Exact counts, by adding one rank after the other.
    """
    counts = [1]
    for rank in range(1, n + 1):
        counts = [
            (counts[s] if s < len(counts) else 0) + (counts[s - rank] if s >= rank else 0)
            for s in range(len(counts) + rank)
        ]
    below, allowed = 0, alpha / 2 * 2**n
    for k, count in enumerate(counts):
        below += count
        if below > allowed:
            return k
    return len(counts)
