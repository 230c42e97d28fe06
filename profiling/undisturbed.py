"""Measuring again while the machine is in a slower state than it has been seen in.

A virtual machine can change its speed by a factor for seconds at a time: its host moves the virtual
cores apart, and every synchronization of threads takes longer. The original, which is measured with
every candidate, shows the state the machine was in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ..core.records import Latency
from . import notices
from .patience import FIRST_PAUSE, LONGEST_PAUSE, Waiting
from .questions import SLOWER

ATTEMPTS = 4
SECONDS = 40.0


@dataclass(frozen=True)
class Attempts:
    """The attempt that counts, and whether the machine stayed slow through all of them."""

    rows: list[Latency]
    disturbed: bool = False


def undisturbed(
    attempt: Callable[[], list[Latency]],
    usual_ms: float,
    attempts: int = ATTEMPTS,
    seconds: float = SECONDS,
    waiting: Waiting | None = None,
) -> Attempts:
    """The rows of the attempt whose first row, the original, was fastest.

    Measures again while the original is over 5 % slower than `usual_ms`, after pauses that double:
    `attempts` times in all at most, and none that would end after `seconds`. Only the original
    decides which attempt counts, so the choice can't favor a candidate. A notice says so where the
    machine stayed slow.
    """
    waiting = waiting or Waiting()
    start = waiting.now()
    best = attempt()
    once = waiting.now() - start
    pause = FIRST_PAUSE
    for _ in range(attempts - 1):
        late = waiting.now() - start + pause + once > seconds
        if best[0].value_ms <= SLOWER * usual_ms or late:
            break
        waiting.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)
        again = attempt()
        if again[0].value_ms < best[0].value_ms:
            best = again
    notice = notices.disturbed(best[0].value_ms, usual_ms, SLOWER)
    if notice is None:
        return Attempts(best)
    return Attempts([replace(row, notices=(*row.notices, notice)) for row in best], True)
