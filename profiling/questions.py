"""Questions that measurements are to answer: each stops as soon as its answer is known.

Looking again and again at a test of 1 % would err far more often than in 1 % of cases. So the
looks are few and fixed in time (each after twice the time of the one before), and they share the
1 % (group-sequential testing: Pocock 1977; Lan & DeMets 1983; divided evenly, which is valid
whatever the looks have to do with each other). Each look is a signed-rank test over the rounds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ..core.records import Comparison, Latency, Target, on_reference
from . import signed_rank
from .statistics import (
    NEGLIGIBLE,
    compare_samples,
    half_width,
    percentile,
    percentile_interval,
    verdict,
)

ALPHA = 0.01
LOOKS = 6  # at 1/32, 1/16 ... of the time, and at its end
SAME = 0.02  # an interval within this on both sides: the two are alike
WIDTH = 0.01
MAX_PAIRS = 40  # more rounds than that are put together
SLOWER = 1.05  # than in a quiet moment: disturbed
HOPELESS = 2.0  # times WIDTH that the interval would still have at the bound
Rows = Sequence[Sequence[float]]


class Question(Protocol):
    """`rows`: samples by run, `block` of them a round; `share`: of the time that may be spent."""

    def answered(self, rows: Rows, block: int, share: float) -> bool: ...


def tight(row: Sequence[float], p: float, reach: float = 1.0) -> bool:
    """True if the 95 % interval is within 1 %; within `1 % / reach` to ask what more time gives."""
    return half_width(*percentile_interval(row, p)) * reach <= WIDTH


@dataclass
class Figures:
    """The latency of each run to 1 %, or as well as this machine can give it."""

    percentile: float

    def answered(self, rows: Rows, block: int, share: float) -> bool:
        if all(tight(row, self.percentile) for row in rows):
            return True
        # The width falls with the root of the time; what stays far too wide is not waited for.
        reach = math.sqrt(share) / HOPELESS
        return share >= 0.25 and not all(tight(row, self.percentile, reach) for row in rows)


@dataclass
class Order:
    """The fastest run, and whether each of the others is slower than that one.

    Two whose ratio is known to be within `same` are alike. Remembers the rows it last looked at:
    `comparison` answers from them.
    """

    percentile: float
    same: float = SAME
    rows: Rows = ()
    block: int = 1
    _looked: int = field(default=0, repr=False)

    def answered(self, rows: Rows, block: int, share: float) -> bool:
        self.rows, self.block = rows, block
        if share < 2.0**self._looked / 2 ** (LOOKS - 1):
            return False
        while share >= 2.0**self._looked / 2 ** (LOOKS - 1):
            self._looked += 1
        medians = [percentile(row, self.percentile) for row in rows]
        best = medians.index(min(medians))
        return all(self.decided(best, other) for other in range(len(rows)) if other != best)

    def decided(self, first: int, second: int) -> bool:
        _, low, high = self._interval(first, second)
        return low > 0 or high < 0 or max(-low, high) <= math.log1p(self.same)

    def comparison(self, first: int = 0, second: int = 1) -> Comparison:
        """Speed-up of run `second` over run `first`, with the interval that the looks leave.

        Where a tail has too few rounds for that, by `compare_samples`, which looks only once.
        """
        before, after = self.rows[first], self.rows[second]
        middle, low, high = self._interval(first, second)
        if math.isinf(low):
            return compare_samples(before, after, self.percentile)
        speedup = percentile(before, self.percentile) / max(
            percentile(after, self.percentile), 1e-9
        )
        ends = min(math.exp(low), speedup), max(math.exp(high), speedup)
        if low <= 0 <= high or abs(math.expm1(middle)) < NEGLIGIBLE:
            return Comparison(speedup, *ends, "no significant change")
        return Comparison(speedup, *ends, "faster" if middle > 0 else "slower")

    def _interval(self, first: int, second: int) -> tuple[float, float, float]:
        alpha = ALPHA / LOOKS / max(1, len(self.rows) - 1)
        return signed_rank.interval(self._ratios(first, second), alpha)

    def _ratios(self, first: int, second: int) -> list[float]:
        """Logarithms of run `first` over run `second`, one for each round or few rounds."""
        rounds = len(self.rows[0]) // self.block
        tail = min(self.percentile, 100.0 - self.percentile) / 100.0
        least = 1 if tail >= 0.5 else math.ceil(1.0 / tail / self.block)
        together = max(least, math.ceil(rounds / MAX_PAIRS))
        size = together * self.block
        return [
            math.log(
                max(percentile(self.rows[first][at : at + size], self.percentile), 1e-9)
                / max(percentile(self.rows[second][at : at + size], self.percentile), 1e-9)
            )
            for at in range(0, (rounds // together) * size, size)
        ]


@dataclass
class Clear:
    """The verdict on a target: both latencies to 1 %, or a clear answer where that can't be had.

    Run 0 is the original, `quiet_ms` what it takes while the machine is quiet. On a machine that
    is slower than that, figures to 1 % would be figures of a disturbance.
    """

    target: Target
    quiet_ms: float
    order: Order = field(init=False)

    def __post_init__(self) -> None:
        self.order = Order(self.target.percentile)

    def answered(self, rows: Rows, block: int, share: float) -> bool:
        p = self.target.percentile
        known = self.order.answered(rows, block, share)
        if all(tight(row, p) for row in rows):
            return True
        in_reach = all(tight(row, p, math.sqrt(share)) for row in rows)
        if not known or (in_reach and percentile(rows[0], p) <= SLOWER * self.quiet_ms):
            return False
        return self._verdict(rows) != "inconclusive"

    def _verdict(self, rows: Rows) -> str:
        comparison, p = self.order.comparison(), self.target.percentile
        final = Latency(p, *percentile_interval(rows[1], p))
        quiet = min(self.quiet_ms, percentile(rows[0], p))
        return verdict(self.target, on_reference(final, comparison, quiet), comparison)
