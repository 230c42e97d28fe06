"""Waiting for a machine that others keep busy: pauses that grow, within a budget."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 8.0
SECONDS = 30.0


@dataclass(frozen=True)
class Waiting:
    """Time as it passes, and pauses in it; a test gives one of its own."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


@dataclass
class Patience:
    """Seconds that may be spent on waiting, in pauses that double."""

    seconds: float = SECONDS

    def at_most(self, seconds: float) -> None:
        """Spend no more than that from here on."""
        self.seconds = min(self.seconds, seconds)

    def pauses(self, sleep: Callable[[float], None]) -> Iterator[float]:
        """Each after it has been slept; ends when the seconds are used up."""
        pause = FIRST_PAUSE
        while pause <= self.seconds:
            self.seconds -= pause
            sleep(pause)
            yield pause
            pause = min(2 * pause, LONGEST_PAUSE)


# One budget for all measurements of a process: where a machine stays busy, each of them would
# wait in vain.
OF_THIS_PROCESS = Patience()
