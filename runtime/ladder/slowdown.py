"""Belief about how many times slower than measured the machine is now: one number for all rungs.

A Kalman filter over `ln(taken / expected)` (docs/ladder.md). ALERT (arXiv 1911.00119) filters the
ratio itself; its logarithm makes a slowdown of 2 and a speed-up of 2 the same distance.
"""

from __future__ import annotations

import math
from bisect import bisect_left

PRIOR = 0.1**2  # before the first answer: as measured, give or take 10 %
DRIFT = 0.02**2  # variance that each answer adds: the machine changes by about 2 %
IDLE_DRIFT = 0.005**2  # and each second without an answer
HALF_LIFE = 1.0  # seconds in which a belief that lets nothing run fades by half
MAX_VARIANCE = 1.0
NOISE_FLOOR = 0.01**2  # of one answer, however alike the samples were
GATE = 3.0  # standard deviations from which on an answer is out of the ordinary
LEARNING = 0.1  # rate at which noise beyond the measured one is learned
MEMORY = 1 / 64  # rate at which the share of answers out of the ordinary is forgotten
MANY = 0.1  # share from which on they are this machine's noise
# Standard deviations for which limits are computed once; a belief is rounded up to one of them.
SPREADS = (0.01, 0.015, 0.022, 0.033, 0.05, 0.075, 0.11, 0.17, 0.25, 0.38, 0.57, 0.85, 1.3)
_VARIANCES = tuple(s * s for s in SPREADS)


class Slowdown:
    """Mean and variance of the logarithm of the slowdown.

    `state` is what a choice reads, replaced as one: the mean, and the index in `SPREADS` of its
    standard deviation.
    """

    __slots__ = ("_extra", "_odd", "_odd_share", "mean", "state", "variance")

    def __init__(self) -> None:
        self.mean, self.variance = 0.0, PRIOR
        self._extra = 0.0  # noise of answers beyond that of the samples
        self._odd = 0.0  # distance of the last answer, if that was out of the ordinary
        self._odd_share = 0.0
        self.state = (0.0, self._cell())

    @property
    def factor(self) -> float:
        return math.exp(self.mean)

    @property
    def spread(self) -> float:
        return math.sqrt(self.variance + self._extra)

    def observe(self, log_ratio: float, noise: float, idle_s: float = 0.0) -> None:
        """Learn from one answer: `ln(taken / expected)`, and the variance of such logarithms in
        the rung's samples. Not thread-safe."""
        grown = min(self.variance + DRIFT + IDLE_DRIFT * max(0.0, idle_s), MAX_VARIANCE)
        noise = max(noise, NOISE_FLOOR)
        off = log_ratio - self.mean
        total = grown + noise + self._extra
        odd = off * off > GATE * GATE * total
        self._odd_share += MEMORY * (odd - self._odd_share)
        if odd and self._odd * off > 0:
            self._step(off, grown, noise)
            self._odd = 0.0
        elif odd and not self._odd and self._odd_share < MANY:
            self._odd = off  # a spike, until the next answer says the same
            return
        else:
            self._update(off, grown, total)
            self._odd = off if odd else 0.0
        self.state = (self.mean, self._cell())

    def rest(self, seconds: float) -> None:
        """Fade, since nothing ran for so long: a belief that refuses everything would never see
        that it is wrong. A machine that is as slow as believed says so again in two answers.

        A mixture of what was believed and of a machine as measured, with the same two moments.
        """
        share = 0.5 ** (max(0.0, seconds) / HALF_LIFE)
        apart = share * (1.0 - share) * self.mean**2
        self.variance = min(share * self.variance + (1.0 - share) * PRIOR + apart, MAX_VARIANCE)
        self.mean *= share
        self._extra *= share
        self.state = (self.mean, self._cell())

    def _step(self, off: float, grown: float, noise: float) -> None:
        """Two on one side in a row: the machine has changed, by the smaller of the two at least."""
        smaller = min(off, self._odd, key=abs)
        self.mean += smaller
        self.variance = min(grown + noise + (off - self._odd) ** 2 / 4, MAX_VARIANCE)

    def _update(self, off: float, grown: float, total: float) -> None:
        square = min(off * off, GATE * GATE * total)
        gain = grown / total
        self.mean += gain * math.copysign(math.sqrt(square), off)
        self.variance = (1.0 - gain) * grown
        self._extra = min(max(0.0, self._extra + LEARNING * (square - total)), MAX_VARIANCE)

    def _cell(self) -> int:
        return min(bisect_left(_VARIANCES, self.variance + self._extra), len(SPREADS) - 1)
