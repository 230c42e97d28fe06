"""A clock on a machine that is not quiet: slow phases, spikes and drift, drawn from a seed."""

from __future__ import annotations

import random
from collections.abc import Callable

from modelspeed.profiling.notices import Load

KINDS = ("quiet", "phases", "long phases", "spikes", "drift", "becomes faster", "all")


class NoisyClock:
    """A call takes what it returns (ms) times the machine's factor at that moment, and 2 % of
    noise. Phases are 1.3 to 2 times as slow and last 0.1 s to 3 minutes."""

    def __init__(self, kind: str, seed: int) -> None:
        self.chance = random.Random(f"{kind} {seed}")
        self.kind, self.seconds = kind, 0.0
        self.factor, self.until = 1.0, self.chance.uniform(0, 1)
        self.changes_at = self.chance.uniform(0, 4)

    def time(self, run: Callable[[], object]) -> float:
        ms = float(run()) * self._factor() * (1 + abs(self.chance.gauss(0, 0.02)))  # type: ignore[arg-type]
        self.seconds += ms / 1e3
        return ms

    def _factor(self) -> float:
        is_kind = (self.kind, "all").__contains__
        factor = 1.0
        if is_kind("phases") or is_kind("long phases"):
            factor *= self._phase(3.0 if self.kind == "phases" else 180.0)
        if is_kind("spikes") and self.chance.random() < 0.03:
            factor *= self.chance.uniform(2, 20)
        if is_kind("drift"):
            factor *= 1 + 0.05 * self.seconds
        if is_kind("becomes faster") and self.seconds > self.changes_at:
            factor *= 0.6
        return factor

    def _phase(self, longest: float) -> float:
        if self.seconds >= self.until:
            slow = self.factor == 1.0
            self.factor = self.chance.uniform(1.3, 2.0) if slow else 1.0
            # As many short phases as long ones, by order of magnitude.
            self.until = self.seconds + 0.1 * (longest / 0.1) ** self.chance.random()
        return self.factor

    def now(self) -> float:
        return self.seconds

    def load(self) -> Load | None:
        return None

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds
