"""Time of a stream's decision by queue length: `python benchmarks/ladder_decisions.py`, one core.

Queues as they come in simulated streams of four rungs at batch 1 to 32, calm, in bursts, overloaded
and slowed down. Each is decided by `LookAhead` and by its plain form, which looks at all of it
(tests/support/plain_policy.py), in turns; the least of REPEATS of each, in us.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from modelspeed.core.quantile import quantile
from modelspeed.runtime.ladder.policy import Dispatch, LookAhead
from modelspeed.runtime.ladder.predictor import Predictor
from modelspeed.runtime.ladder.times import RungTimes

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from fake_rungs import SCORES, median_of, samples
from plain_policy import PlainLookAhead
from virtual_stream import arrivals, simulate

SIZES = (1, 2, 4, 8, 16, 32)
SLOS_MS = (25.0, 60.0)
RATES = (0.1, 0.3, 0.8, 1.5, 2.5, 4.0)  # requests per ms; the top rung alone in batches of 32: 0.39
BURSTS = (1.0, 6.0)
REQUESTS, REPEATS = 1500, 5
LENGTHS = (1, 3, 10, 30, 100)  # of queues: up to


@dataclass
class Recording:
    """A policy that notes the queues it is asked about."""

    policy: LookAhead
    predictor: Predictor
    queues: list[tuple[Any, ...]] = field(default_factory=list)

    def decide(self, deadlines: Sequence[float], now: float, rate: float) -> Dispatch:
        self.queues.append((list(deadlines), now, rate, self.predictor.state))
        return self.policy.decide(deadlines, now, rate)

    def admits(self, place: int, slack_ms: float, busy_ms: float) -> bool:
        return self.policy.admits(place, slack_ms, busy_ms)

    def run_singly(self) -> None:
        self.policy.run_singly()


def rungs() -> list[RungTimes]:
    return [
        RungTimes(f"{rung}", score, {b: samples(median_of(rung, b)) for b in SIZES})
        for rung, score in enumerate(SCORES)
    ]


def recorded(times: list[RungTimes], slo: float, rate: float, burst: float) -> list[Any]:
    predictor = Predictor(times)
    policy = Recording(LookAhead(predictor, slo), predictor)
    coming = arrivals(rate, REQUESTS / rate, seed=int(10 * rate), burst=burst)
    simulate(policy, predictor, coming, slo, lambda now: 1.6 if now % 1000 > 700 else 1.0)
    return policy.queues


def timed(kind: Callable[..., Any], queues: list[Any], times: list[RungTimes], slo: float) -> Any:
    """A function that decides on all of them: us and decisions."""
    known = Predictor(times)
    machine = SimpleNamespace(times=known.times, scores=known.scores, state=known.state)
    policy = kind(machine, slo)

    def once() -> tuple[list[float], list[Dispatch]]:
        taken, found = [], []
        for deadlines, now, rate, machine.state in queues:
            start = time.perf_counter_ns()
            found.append(policy.decide(deadlines, now, rate))
            taken.append((time.perf_counter_ns() - start) / 1000)
        return taken, found

    return once


def main() -> None:
    times, rows = rungs(), []
    for slo in SLOS_MS:
        queues = [
            q for rate in RATES for burst in BURSTS for q in recorded(times, slo, rate, burst)
        ]
        plain, ours = (timed(kind, queues, times, slo) for kind in (PlainLookAhead, LookAhead))
        turns = [(plain(), ours()) for _ in range(REPEATS)]
        assert all(a[1] == b[1] for a, b in turns), "they decide otherwise"
        least = [map(min, *(turn[i][0] for turn in turns)) for i in (0, 1)]
        rows += zip((len(q[0]) for q in queues), *least, strict=True)
    print(
        "| waiting | decisions | plain p50 us | p99 | p50 us | p99 us | p50: times | p99: times |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for low, high in zip((0, *LENGTHS), (*LENGTHS, 10**6), strict=True):
        found = zip(*(r[1:] for r in rows if low < r[0] <= high), strict=True)
        cells = [sorted(column) for column in found]
        if not cells:
            continue
        before, after = ([quantile(column, q) for q in (0.5, 0.99)] for column in cells)
        ratios = [f"{a / b:.1f}" for a, b in zip(before, after, strict=True)]
        words = [f"{us:.1f}" for us in (*before, *after)]
        name = f"{low + 1} to {high}" if high < 10**6 else f"more than {low}"
        print(f"| {name} | {len(cells[0]):,} | {' | '.join((*words, *ratios))} |")


if __name__ == "__main__":
    main()
