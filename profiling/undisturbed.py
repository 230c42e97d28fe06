"""Measuring again while the machine is in a slower state than it has been seen in.

A virtual machine can change its speed by a factor for seconds at a time: its host moves the virtual
cores apart, and every synchronization of threads takes longer. The original, which is measured with
every candidate, shows the state the machine was in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ..core.records import Latency
from . import notices

SLOWER = 1.1
ATTEMPTS = 3


def undisturbed(
    attempt: Callable[[], list[Latency]], usual_ms: float, attempts: int = ATTEMPTS
) -> list[Latency]:
    """The rows of the attempt whose first row, the original, was fastest.

    Measures again, `attempts` times in all at most, while the original is over 10 % slower than
    `usual_ms`. Only the original decides which attempt counts, so the choice can't favor a
    candidate. A notice says so where the machine stayed slow.
    """
    best = attempt()
    for _ in range(attempts - 1):
        if best[0].value_ms <= SLOWER * usual_ms:
            return best
        again = attempt()
        if again[0].value_ms < best[0].value_ms:
            best = again
    notice = notices.disturbed(best[0].value_ms, usual_ms, SLOWER)
    if notice is None:
        return best
    return [replace(row, notices=(*row.notices, notice)) for row in best]
