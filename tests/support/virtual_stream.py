"""A scheduler driven in virtual time: recorded arrivals, drawn latencies, nothing runs."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fake_rungs import NOISE, SCORES, median_of
from modelspeed.runtime.ladder.policy import Policy
from modelspeed.runtime.ladder.predictor import Predictor
from modelspeed.runtime.ladder.scheduler import Scheduler


@dataclass
class Outcome:
    in_time: int = 0
    late: int = 0
    refused: int = 0
    accuracy: float = 0.0  # sum over answers in time
    runs: int = 0

    @property
    def requests(self) -> int:
        return self.in_time + self.late + self.refused

    @property
    def attainment(self) -> float:
        return self.in_time / self.requests

    @property
    def mean_accuracy(self) -> float:
        return self.accuracy / max(1, self.in_time)

    @property
    def value(self) -> float:
        return self.accuracy / self.requests


def arrivals(rate: float, ms: float, seed: int = 0, burst: float = 1.0) -> list[float]:
    """Poisson arrivals, `rate` per ms; with `burst` every fourth 200 ms are that much denser."""
    draw, now, found = random.Random(seed), 0.0, []
    while now < ms:
        dense = int(now / 200) % 4 == 0
        now += draw.expovariate(rate * (burst if dense else 1.0))
        found.append(now)
    return found


def simulate(
    policy: Policy,
    predictor: Predictor,
    times: Sequence[float],
    slo_ms: float,
    slowdown: Callable[[float], float] = lambda now: 1.0,
    max_queue: int = 1024,
    seed: int = 0,
) -> Outcome:
    scheduler: Scheduler[int] = Scheduler(policy, max_queue)
    draw, found, now, next_ = random.Random(seed), Outcome(), 0.0, 0
    while next_ < len(times) or len(scheduler):
        if not len(scheduler):
            now = max(now, times[next_])
        while next_ < len(times) and times[next_] <= now:
            if scheduler.submit(next_, times[next_] + slo_ms, times[next_]):
                found.refused += 1
            next_ += 1
        round_ = scheduler.next(now)
        if round_ is None:
            continue
        found.refused += len(round_.refused)
        if not round_.requests:
            continue
        count = len(round_.requests)
        size = predictor.times.rungs[round_.rung].run_size(count)
        took = median_of(round_.rung, size) * slowdown(now) * draw.lognormvariate(0, NOISE)
        scheduler.started(now + predictor.expected_ms(round_.rung, size))
        end = now + took
        while next_ < len(times) and times[next_] <= end:
            if scheduler.submit(next_, times[next_] + slo_ms, times[next_]):
                found.refused += 1
            next_ += 1
        now = end
        scheduler.ended()
        predictor.observe(round_.rung, size, took, now_ms=now)
        found.runs += 1
        for deadline in round_.deadlines:
            if now <= deadline:
                found.in_time += 1
                found.accuracy += SCORES[round_.rung]
            else:
                found.late += 1
    return found
