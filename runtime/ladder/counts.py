"""Counts of what a ladder and its streams did, for `ladder.stats()` and for what watches them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

LOG = logging.getLogger("modelspeed.ladder")
LOG_EVERY_MS = 1000.0


@dataclass(frozen=True)
class Stats:
    """Counts since the ladder was loaded. Times in ms.

    `answers`, `late` and `busy_ms` are by rung; `refused` by reason: `late`, `full`, `closed`.
    `late` counts answers over their budget or deadline. `cascaded` answers were asked of a cascade,
    `went_up` of them were given by its high rung. `queue` waits in open streams now. `slowdown`:
    how many times slower than measured the machine is believed to be, `spread` the standard
    deviation of its logarithm.
    """

    answers: dict[str, int]
    late: dict[str, int]
    busy_ms: dict[str, float]
    refused: dict[str, int]
    failed: int
    dropped: int
    cascaded: int
    went_up: int
    queue: int
    slowdown: float
    spread: float

    @property
    def share_up(self) -> float | None:
        """Share of cascaded answers that the high rung gave; None before the first."""
        return self.went_up / self.cascaded if self.cascaded else None


class Counts:
    """Thread-safe. `names`: of the rungs."""

    def __init__(self, names: Sequence[str], clock: Callable[[], float]) -> None:
        self.names, self._clock = tuple(names), clock
        self._lock = threading.Lock()
        self._answers, self._late = [0] * len(names), [0] * len(names)
        self._busy = [0.0] * len(names)
        self._refused = {"late": 0, "full": 0, "closed": 0}
        self._failed = self._dropped = self._cascaded = self._went_up = 0
        self._rung, self._changes, self._said_at = -1, 0, float("-inf")

    def answered(
        self, rung: int, taken_ms: float, answers: int, late: int, slowdown: float
    ) -> None:
        with self._lock:
            self._answers[rung] += answers
            self._late[rung] += late
            self._busy[rung] += taken_ms
            text = self._change(rung, slowdown) if rung != self._rung else ""
        if text:
            LOG.info(text)

    def refused(self, reason: str, requests: int = 1) -> None:
        with self._lock:
            self._refused[reason] += requests

    def failed(self) -> None:
        """A request whose own inputs raised."""
        with self._lock:
            self._failed += 1

    def dropped(self) -> None:
        """A request that its owner took back before it ran."""
        with self._lock:
            self._dropped += 1

    def cascaded(self, answers: int, high: int, went_up: int, taken_ms: float, late: int) -> None:
        """Answers asked of a cascade. `went_up` of them, `late` or not, were given by rung `high`
        in `taken_ms`: that is the cascade at work, not a change of rungs to be logged."""
        with self._lock:
            self._cascaded += answers
            self._went_up += went_up
            self._answers[high] += went_up
            self._late[high] += late
            self._busy[high] += taken_ms

    def stats(self, queue: int, slowdown: float, spread: float) -> Stats:
        with self._lock:
            return Stats(
                answers=dict(zip(self.names, self._answers, strict=True)),
                late=dict(zip(self.names, self._late, strict=True)),
                busy_ms=dict(zip(self.names, self._busy, strict=True)),
                refused=dict(self._refused),
                failed=self._failed,
                dropped=self._dropped,
                cascaded=self._cascaded,
                went_up=self._went_up,
                queue=queue,
                slowdown=slowdown,
                spread=spread,
            )

    def _change(self, rung: int, slowdown: float) -> str:
        """The line about a change of rungs; empty for the first rung, and soon after a line."""
        before, self._rung = self._rung, rung
        if before < 0:
            return ""
        now = self._clock()
        if now - self._said_at < LOG_EVERY_MS:
            self._changes += 1
            return ""
        others, self._changes, self._said_at = self._changes, 0, now
        more = f", {others} more changes since the last line" if others else ""
        return (
            f"rung {self.names[rung]} after {self.names[before]}: the machine is {slowdown:.2f} "
            f"times as slow as measured{more}"
        )
