"""The queue of a stream, without threads or a clock: what waits, what is refused, what runs next.

Whoever drives it, a stream or a simulation, says what time it is (ms) and what runs took.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from .policy import Policy

T = TypeVar("T")
Reason = Literal["late", "full"]
NOT_RUNNING = float("-inf")
RECENT = 1 / 32  # weight of an arrival in the mean gap


@dataclass(frozen=True)
class Round(Generic[T]):
    """Requests to refuse, and those to run together on `rung`, which may be none."""

    refused: tuple[T, ...]
    rung: int
    requests: tuple[T, ...]
    deadlines: tuple[float, ...]


class Scheduler(Generic[T]):
    """Requests in order of their deadlines, at most `max_queue`. Not thread-safe."""

    def __init__(self, policy: Policy, max_queue: int) -> None:
        self._policy, self._max = policy, max_queue
        self._deadlines: list[float] = []
        self._requests: list[T] = []
        self._busy_until = NOT_RUNNING
        self._arrived: float | None = None
        self._gap: float | None = None  # ms between arrivals, lately

    def __len__(self) -> int:
        return len(self._deadlines)

    def __iter__(self) -> Iterator[T]:
        return iter(self._requests)

    @property
    def rate(self) -> float:
        """Arrivals per ms lately; 0 before the second one."""
        return 1.0 / max(self._gap, 1e-3) if self._gap is not None else 0.0

    def submit(self, request: T, deadline: float, now: float) -> Reason | None:
        """Queue a request; or the reason for which it is not taken."""
        self._note_arrival(now)
        if len(self._deadlines) >= self._max:
            return "full"
        place = bisect_right(self._deadlines, deadline)
        busy = max(0.0, self._busy_until - now)
        admitted = self._policy.admits(place, deadline - now, busy)
        if not admitted and self._is_idle:
            self._policy.rest(now)
            admitted = self._policy.admits(place, deadline - now, busy)
        if not admitted:
            return "late"
        self._deadlines.insert(place, deadline)
        self._requests.insert(place, request)
        return None

    def remove(self, request: T, deadline: float) -> bool:
        """Take a request back; False if it does not wait any more."""
        place = bisect_left(self._deadlines, deadline)
        while place < len(self._deadlines) and self._deadlines[place] == deadline:
            if self._requests[place] is request:
                del self._deadlines[place], self._requests[place]
                return True
            place += 1
        return False

    def next(self, now: float) -> Round[T] | None:
        """Requests to refuse and to run now; None if nothing waits."""
        if not self._deadlines:
            return None
        decision = self._policy.decide(self._deadlines, now, self.rate)
        refused, end = decision.refused, decision.refused + decision.count
        found = Round(
            tuple(self._requests[:refused]),
            decision.rung,
            tuple(self._requests[refused:end]),
            tuple(self._deadlines[refused:end]),
        )
        del self._requests[:end], self._deadlines[:end]
        return found

    def started(self, expected_end: float) -> None:
        """A run is on its way, and ends at about that time."""
        self._busy_until = expected_end

    def ended(self) -> None:
        self._busy_until = NOT_RUNNING

    def take_all(self) -> tuple[T, ...]:
        """All that wait, which wait no more."""
        taken = tuple(self._requests)
        self._requests.clear()
        self._deadlines.clear()
        return taken

    @property
    def _is_idle(self) -> bool:
        """True if nothing waits and nothing runs."""
        return not self._deadlines and self._busy_until == NOT_RUNNING

    def _note_arrival(self, now: float) -> None:
        if self._arrived is not None:
            gap = max(0.0, now - self._arrived)
            self._gap = gap if self._gap is None else self._gap + RECENT * (gap - self._gap)
        self._arrived = now
