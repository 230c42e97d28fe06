"""The quantile that every part of modelspeed means: an observed value, never one in between."""

from __future__ import annotations

import math
from collections.abc import Sequence


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value at rank ceil(n * share) of `ordered`, which rises and holds something."""
    # The tiny step back keeps 0.95 * 20 = 19.000000000000004 at rank 19.
    rank = math.ceil(len(ordered) * share - 1e-9)
    return ordered[min(len(ordered), max(1, rank)) - 1]
