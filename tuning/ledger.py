"""Where a run's time goes, by kind of work. A record that only grows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from ..core.records import TimeSpent
from ..profiling.gate import working

OPENING = "loading and capture"
MEASURING = "measuring"
EVALUATING = "evaluating"
BUILDING = "building candidates"
TRAINING = "training"
VERIFYING = "verifying in a fresh process"
JUDGING = "evaluating in the fresh process"
WRITING = "writing"
KINDS = (OPENING, MEASURING, EVALUATING, BUILDING, TRAINING, VERIFYING, JUDGING, WRITING)
EARLIER, REST = "before the interruption", "all else"


@dataclass
class Ledger:
    """Exclusive seconds: a block within another one pauses it, so that nothing counts twice."""

    clock: Callable[[], float] = working
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(KINDS, 0.0))
    _open: list[str] = field(default_factory=list)
    _since: float = 0.0

    @contextmanager
    def spends(self, kind: str) -> Iterator[None]:
        """The block's time goes to `kind`, except for that of blocks within it."""
        self._settle()
        self._open.append(kind)
        try:
            yield
        finally:
            self._settle()
            self._open.pop()

    def moved(self, seconds: float, source: str, kind: str) -> None:
        """Count seconds of `source` as `kind`: what another process says it did with them."""
        taken = min(seconds, self.seconds[source])
        self.seconds[source] -= taken
        self.seconds[kind] += taken

    def total(self, kind: str) -> float:
        """Seconds so far, those of a block that is still open included."""
        self._settle()
        return self.seconds[kind]

    def rows(
        self, whole: float, earlier: float = 0.0, planned: Mapping[str, float] | None = None
    ) -> tuple[TimeSpent, ...]:
        """Rows that sum to `whole` seconds, `earlier` of them before the run was interrupted."""
        self._settle()
        plan = planned or {}
        rows = [
            TimeSpent(kind, round(seconds, 2), plan.get(kind))
            for kind, seconds in self.seconds.items()
            if seconds >= 0.005 or kind in plan
        ]
        if earlier:
            rows.insert(0, TimeSpent(EARLIER, round(earlier, 2)))
        rest = round(whole - sum(row.seconds for row in rows), 2)
        return (*rows, TimeSpent(REST, rest)) if rest > 0 else tuple(rows)

    def _settle(self) -> None:
        """Time since the last look belongs to the innermost open block."""
        now = self.clock()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now
