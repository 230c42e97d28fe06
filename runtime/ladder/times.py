"""Measured latencies of the rungs, and how long each takes at most with a given confidence.

Everything is on the scale of the machine as it was when they were measured: a slowdown multiplies
times, so budgets are divided by it.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from ...core.quantile import quantile
from .slowdown import NOISE_FLOOR, SPREADS

# Shares of a distribution that one point each stands for: fine where limits lie.
_GROUPS = (*(0.025,) * 36, *(0.005,) * 16, *(0.001,) * 20)
MAX_KEPT = 1 << 14
K = TypeVar("K")


class Distribution:
    """Logarithms of a latency, as few points with the share that each stands for."""

    def __init__(self, samples_ms: Sequence[float]) -> None:
        ordered = sorted(samples_ms)
        self.median_ms = quantile(ordered, 0.5)
        # Half the distance of the quantiles that lie one standard deviation from the middle.
        wide = math.log(quantile(ordered, 0.841) / quantile(ordered, 0.159)) / 2
        self.noise = max(wide * wide, NOISE_FLOOR)
        self._logs, at = [], 0.0
        for share in _GROUPS:
            at += share
            self._logs.append(math.log(quantile(ordered, at if at > 0.9 else at - share / 2)))

    def limit_ms(self, confidence: float, spread: float) -> float:
        """The time that a call stays within with probability `confidence`, where the logarithm of
        the slowdown is normal around 0 with the standard deviation `spread`."""
        low, high = self._logs[0] - 6 * spread, self._logs[-1] + 6 * spread
        while high - low > 1e-4:
            middle = (low + high) / 2
            if self._within(middle, spread) >= confidence:
                high = middle
            else:
                low = middle
        return math.exp(high)

    def within(self, ms: float, spread: float) -> float:
        """Probability that a call takes at most `ms`."""
        return self._within(math.log(ms), spread) if ms > 0 else 0.0

    def _within(self, log_ms: float, spread: float) -> float:
        scale, erf = 1 / (spread * math.sqrt(2.0)), math.erf
        points = zip(self._logs, _GROUPS, strict=True)
        return 0.5 + 0.5 * math.fsum(share * erf((log_ms - x) * scale) for x, share in points)


@dataclass(frozen=True)
class RungTimes:
    """A rung as choices see it: its worth, and raw samples (ms) by batch size.

    `only_sizes`: the graph runs at measured batch sizes only, so that fewer inputs are padded.
    """

    name: str
    score: float
    samples_ms: Mapping[int, Sequence[float]]
    only_sizes: bool = False

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        return tuple(sorted(self.samples_ms))

    def run_size(self, count: int) -> int:
        """The batch size at which `count` inputs run."""
        sizes = self.sizes
        at = bisect_left(sizes, count)
        return sizes[at] if self.only_sizes and at < len(sizes) else count


class Times:
    """Medians and limits of all rungs at any batch size, from those that were measured.

    Between two measured sizes they are interpolated, beyond the largest they grow in proportion.
    """

    def __init__(self, rungs: Sequence[RungTimes]) -> None:
        self.rungs = tuple(rungs)
        self._measured = [{b: Distribution(ms) for b, ms in r.samples_ms.items()} for r in rungs]
        self._limits: dict[tuple[int, int, int, float], float] = {}
        self._medians: dict[tuple[int, int], float] = {}

    def median_ms(self, rung: int, batch: int) -> float:
        key = (rung, batch)
        value = self._medians.get(key)  # once: another thread may make room meanwhile
        if value is None:
            value = self._between(rung, batch, lambda size: self._measured[rung][size].median_ms)
            _room(self._medians)[key] = value
        return value

    def noise(self, rung: int, batch: int) -> float:
        """Variance of a latency's logarithm at the nearest measured size that is not smaller."""
        sizes = self.rungs[rung].sizes
        return self._measured[rung][sizes[min(bisect_left(sizes, batch), len(sizes) - 1)]].noise

    def limit_ms(self, rung: int, batch: int, cell: int, confidence: float) -> float:
        """The time that `rung` stays within with probability `confidence`; `cell` is the place in
        `SPREADS` of the slowdown's uncertainty."""
        return self._between(
            rung, batch, lambda size: self._measured_limit(rung, size, cell, confidence)
        )

    def _measured_limit(self, rung: int, size: int, cell: int, confidence: float) -> float:
        key = (rung, size, cell, confidence)
        value = self._limits.get(key)
        if value is None:
            value = self._measured[rung][size].limit_ms(confidence, SPREADS[cell])
            _room(self._limits)[key] = value
        return value

    def _between(self, rung: int, batch: int, at: Callable[[int], float]) -> float:
        sizes = self.rungs[rung].sizes
        batch = self.rungs[rung].run_size(batch)
        place = bisect_left(sizes, batch)
        if place == len(sizes):
            return at(sizes[-1]) * batch / sizes[-1]
        above = sizes[place]
        if above == batch or place == 0:
            return at(above)
        below = sizes[place - 1]
        part = (batch - below) / (above - below)
        return (1 - part) * at(below) + part * at(above)


def _room(kept: dict[K, float]) -> dict[K, float]:
    """The same without its entries where a program asks for more sizes than are worth keeping."""
    if len(kept) >= MAX_KEPT:
        kept.clear()
    return kept
