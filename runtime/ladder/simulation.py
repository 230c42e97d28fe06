"""Streams in virtual time: the policy and the queue that serve, and drawn latencies.

A replica is a machine of its own with one stream. Each request goes to the replica where the
fewest wait. What the choice itself takes is left out.
"""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Sequence

from ...core.errors import UsageError
from ...core.ladder_record import LadderRecord
from ...core.simulated import Simulated
from .policy import LookAhead
from .predictor import Predictor
from .scheduler import Round, Scheduler
from .times import RungTimes, Times

NEVER = float("inf")
MAX_REPLICAS = 1000


def rung_times_of(record: LadderRecord) -> list[RungTimes]:
    """The rungs of a record as a policy sees them."""
    return [
        RungTimes(rung.name, score, {row.batch: row.samples_ms for row in rung.latencies})
        for rung, score in zip(record.rungs, record.scores, strict=True)
    ]


def replica_counts(text: str) -> range:
    """`4`, or `1..8`. Raises UsageError."""
    first, dots, last = text.partition("..")
    words = (first, last if dots else first)
    if not all(word.isascii() and word.isdigit() for word in words):
        raise UsageError(f"`--replicas` is `{text}`; it must be a number such as 2, or 1..8.")
    low, high = map(int, words)
    if not 1 <= low <= high <= MAX_REPLICAS:
        raise UsageError(f"`--replicas` is `{text}`; it must be within 1 to {MAX_REPLICAS}.")
    return range(low, high + 1)


def simulate_stream(
    rungs: Sequence[RungTimes],
    arrivals_ms: Sequence[float],
    slo_ms: float,
    *,
    replicas: int = 1,
    max_queue: int = 1024,
    slowdown: float = 1.0,
    seed: int = 0,
) -> Simulated:
    """All of the arrivals, which rise, served by `replicas` streams of these rungs, each
    `slowdown` times as slow as they were measured."""
    names = tuple(rung.name for rung in rungs)
    found = Simulated(names, replicas, requests=len(arrivals_ms), answers=[0] * len(rungs))
    times = Times(rungs)
    servers = [
        Replica(times, slo_ms, max_queue, slowdown, random.Random(f"{seed} {i}"), found)
        for i in range(replicas)
    ]
    for now in arrivals_ms:
        for server in servers:
            server.advance(now)
        min(servers, key=lambda s: s.waiting).submit(now)
    for server in servers:
        server.advance(NEVER)
    return found


class Replica:
    """One stream; `found` counts what becomes of its requests."""

    def __init__(
        self,
        times: Times,
        slo_ms: float,
        max_queue: int,
        slowdown: float,
        draw: random.Random,
        found: Simulated,
    ) -> None:
        self._predictor = Predictor(times.rungs, times)
        self._queue: Scheduler[int] = Scheduler(LookAhead(self._predictor, slo_ms), max_queue)
        self._slo, self._slowdown, self._draw, self._found = slo_ms, slowdown, draw, found
        self._running: tuple[Round[int], int, float] | None = None
        self._end, self._count = NEVER, 0

    @property
    def waiting(self) -> int:
        """Requests that wait, or run."""
        return len(self._queue) + (len(self._running[0].requests) if self._running else 0)

    def submit(self, now: float) -> None:
        self._count += 1
        if self._queue.submit(self._count, now + self._slo, now):
            self._found.refused += 1
        elif self._running is None:
            self._start(now)

    def advance(self, until: float) -> None:
        """End and begin runs up to that time."""
        while self._running is not None and self._end <= until:
            (round_, size, took), now = self._running, self._end
            self._running = None
            self._queue.ended()
            self._predictor.observe(round_.rung, size, took, now_ms=now)
            self._ended(round_, now)
            self._start(now)

    def _start(self, now: float) -> None:
        while (round_ := self._queue.next(now)) is not None:
            self._found.refused += len(round_.refused)
            if not round_.requests:
                continue
            rung = self._predictor.times.rungs[round_.rung]
            size = rung.run_size(len(round_.requests))
            took = self._slowdown * self._taken(round_.rung, size)
            self._running, self._end = (round_, size, took), now + took
            self._queue.started(now + self._predictor.expected_ms(round_.rung, size))
            return

    def _taken(self, rung: int, size: int) -> float:
        """One of the samples of the nearest measured size, on the scale of this one."""
        times = self._predictor.times
        sizes = times.rungs[rung].sizes
        near = sizes[min(bisect_left(sizes, size), len(sizes) - 1)]
        drawn = self._draw.choice(times.rungs[rung].samples_ms[near])
        return drawn * times.median_ms(rung, size) / times.median_ms(rung, near)

    def _ended(self, round_: Round[int], now: float) -> None:
        found = self._found
        found.answers[round_.rung] += len(round_.requests)
        in_time = sum(now <= deadline for deadline in round_.deadlines)
        found.in_time += in_time
        found.late += len(round_.deadlines) - in_time
        found.worth += in_time * self._predictor.scores[round_.rung]
