"""The time of a model while its machine is quiet, from all that was measured in a run."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

NEAR = 1.03  # values this close have seen the machine in the same state
PHASE = 1.05  # all of one phase: the noise of medians is 1 to 2 %
COMPANY = 3
APART = 1.1  # no noise makes a median so much faster than others: it was another phase


def quiet_ms(medians: Sequence[float]) -> float:
    """Median of the fastest phase: from the least value that two others lie within 3 % above, or
    that is far below all that follow.

    The minimum itself would sink with the number of measurements: of 60 medians with 2 % noise it
    lies 5 % below their middle. But one that is 10 % faster than the rest has seen a phase that the
    rest has not, since disturbances only add time. Where no values agree, the least of all counts.
    Raises ValueError for no values.
    """
    values = sorted(medians)
    for at, first in enumerate(values):
        near = [v for v in values[at:] if v <= NEAR * first]
        above = values[at + len(near) :]
        if len(near) >= COMPANY or (above and above[0] > APART * first):
            return median(v for v in values if first <= v <= PHASE * first)
    return values[0]
