"""Does a metric fall by more than a limit? Asked after each batch, with a bounded risk of error.

Looking after each batch and stopping when it suits would spoil a usual interval. The interval here
is an asymptotic confidence sequence: it holds at all times at once (Waudby-Smith, Arbour, Sinha,
Kennedy and Ramdas 2024, "Time-uniform central limit theory and asymptotic confidence sequences",
Theorem 2.2). Both models see the same batches, so what they have in common cancels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

ERROR = 0.01  # the risk that an early answer is wrong
UNSEEN = 2
LEAST = 8  # batches: before that a variance says too little
BEST_AT = 32  # batches where the interval is narrowest for its kind


@dataclass
class SequentialDrop:
    """`add` differences (before - after) of batches; `above` says as soon as it is known.

    `step`: the most by which one example can change its batch's mean times its size, 1 for a
    fraction of right answers. Two such examples count as seen, so that no difference in a few
    batches is not taken for none at all.
    """

    limit: float
    step: float = 1.0
    error: float = ERROR
    _count: int = 0
    _examples: int = 0
    _mean: float = 0.0
    _squares: float = 0.0

    def add(self, difference: float, examples: int) -> None:
        self._count += 1
        self._examples += examples
        delta = difference - self._mean
        self._mean += delta / self._count
        self._squares += delta * (difference - self._mean)

    @property
    def mean(self) -> float:
        return self._mean

    @property
    def above(self) -> bool | None:
        """True if the drop is above the limit, False if it isn't, None while that is open."""
        if self._count < LEAST:
            return None
        reach = self.reach
        if self._mean - reach > self.limit:
            return True
        return False if self._mean + reach <= self.limit else None

    @property
    def reach(self) -> float:
        """Half the interval's width."""
        unseen = UNSEEN * (self.step * self._count / self._examples) ** 2
        variance = (self._squares + unseen) / self._count
        wide = _RHO2 * self._count + 1.0
        inner = math.log(math.sqrt(wide) / self.error)
        return math.sqrt(variance * 2.0 * wide / (self._count**2 * _RHO2) * inner)


def _rho2(best_at: float, error: float) -> float:
    """Their equation for the mixture that is tightest after `best_at` observations."""
    two = -2.0 * math.log(error)
    return (two + math.log(two + 1.0)) / best_at


_RHO2 = _rho2(BEST_AT, ERROR)
