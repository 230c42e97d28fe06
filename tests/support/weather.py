"""Machines that are disturbed: how many times its quiet time a call takes, by the second."""

from __future__ import annotations

import bisect
import math
import random
from collections.abc import Callable
from dataclasses import dataclass

HOUR = 3600.0


@dataclass(frozen=True)
class Weather:
    """`factors[i]` holds from `starts[i]` (s) on; 1 is the quiet machine."""

    starts: tuple[float, ...]
    factors: tuple[float, ...]

    def at(self, second: float) -> float:
        return self.factors[max(0, bisect.bisect_right(self.starts, second) - 1)]

    def median(self, start: float, seconds: float) -> float:
        """Of a measurement that takes so long."""
        rows = sorted(self.at(start + seconds * (i + 0.5) / 9) for i in range(9))
        return rows[4]


def _alternating(
    chance: random.Random, quiet: Callable[[], float], slow: Callable[[], float], factor: float
) -> Weather:
    now, starts, factors = 0.0, [], []
    disturbed = chance.random() < 0.3
    while now < HOUR:
        starts.append(now)
        factors.append(chance.uniform(1.3, factor) if disturbed else 1.0)
        now += slow() if disturbed else quiet()
        disturbed = not disturbed
    return Weather(tuple(starts), tuple(factors))


def quiet(chance: random.Random) -> Weather:
    return Weather((0.0,), (1.0,))


def slow_phases(chance: random.Random) -> Weather:
    """Between a tenth of a second and three minutes, 1.3 to 2 times as slow."""

    def slow() -> float:
        return math.exp(chance.uniform(math.log(0.1), math.log(180.0)))

    return _alternating(chance, lambda: chance.uniform(5.0, 60.0), slow, 2.0)


def spikes(chance: random.Random) -> Weather:
    return _alternating(
        chance, lambda: chance.uniform(0.5, 8.0), lambda: chance.uniform(0.05, 1.5), 4.0
    )


def drift(chance: random.Random) -> Weather:
    """It becomes slower for good, by up to two fifths within the run."""
    end, last = chance.uniform(60.0, 600.0), chance.uniform(1.05, 1.4)
    starts = tuple(end * i / 60 for i in range(61))
    return Weather(starts, tuple(1 + (last - 1) * i / 60 for i in range(61)))


def becomes_faster(chance: random.Random) -> Weather:
    at = chance.uniform(20.0, 150.0)
    return Weather((0.0, at), (chance.uniform(1.2, 2.0), 1.0))


def mostly_slow(chance: random.Random) -> Weather:
    return _alternating(
        chance, lambda: chance.uniform(3.0, 10.0), lambda: chance.uniform(20.0, 180.0), 2.0
    )


KINDS: dict[str, Callable[[random.Random], Weather]] = {
    kind.__name__: kind for kind in (quiet, slow_phases, spikes, drift, becomes_faster, mostly_slow)
}
