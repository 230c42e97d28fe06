"""The time of a model while its machine is quiet, from all that was measured in a run."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

NEAR = 1.03  # values this close have seen the machine in the same state
PHASE = 1.05  # all of one phase: the noise of medians is 1 to 2 %
COMPANY = 2


def quiet_ms(medians: Sequence[float]) -> float:
    """Median of the fastest phase: from the least value that two others lie within 3 % above.

    The minimum itself would sink with the number of measurements: of 60 medians with 2 % noise it
    lies 5 % below their middle. Where fewer agree, the least value with one neighbor counts, or the
    least of all. Raises ValueError for no values.
    """
    values = sorted(medians)
    for company in range(min(COMPANY, len(values) - 1), 0, -1):
        for first, last in zip(values, values[company:], strict=False):
            if last <= NEAR * first:
                return median(v for v in values if first <= v <= PHASE * first)
    return values[0]
