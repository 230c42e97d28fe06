"""Allocations that a search built and measured."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from ..core.records import Candidate, Latency
from .number_formats import FLOAT

Picks = Mapping[str, int]
SHORTLIST = 5
FAR = 10.0  # times the least predicted rise in loss


@dataclass
class Trial:
    """One allocation that was built and measured, the whole model in format `number_format`.

    `predicted_ms` is the sum over the tables, `expected_ms` the same on the scale of what had been
    measured in this format by then. `formats`: the steps of those that all of it or layers of it
    take, which `name` says in words. `share`: the part of the target that its artifact uses in a
    fresh process, where the original takes `quiet_ms`. `failed`: why it can't be had.
    """

    picks: Picks
    predicted_ms: float
    loss: float
    latency: Latency
    runtime: str
    expected_ms: float | None = None
    held: float | None = None
    distance: float | None = None
    number_format: int = FLOAT
    formats: tuple[int, ...] = ()
    name: str = "float32"
    share: float | None = None
    quiet_ms: float | None = None
    failed: str = ""

    def fail(self, reason: str) -> None:
        """No target is met by it, and nothing else is as bad."""
        never = math.inf
        self.failed, self.latency = reason, replace(self.latency, value_ms=never, low_ms=never,
                                                    high_ms=never)  # fmt: skip
        self.held, self.distance = -never, never


def shortlist(fitting: Iterable[Trial]) -> list[Trial]:
    """Those of each format that promise not much less than its best; the best of each first."""
    by_form: dict[tuple[int, ...], list[Trial]] = {}
    for trial in sorted(fitting, key=lambda t: t.loss):
        row = by_form.setdefault(trial.formats, [])
        if len(row) < SHORTLIST and (not row or trial.loss <= FAR * row[0].loss):
            row.append(trial)
    indexes = range(max(map(len, by_form.values()), default=0))
    return [row[i] for i in indexes for row in by_form.values() if i < len(row)]


def interpolated(points: Iterable[tuple[float, float]], at: float) -> float:
    """y at x: linear between neighboring points, and extrapolated from the outer two."""
    rows = sorted(dict(points).items())
    if len(rows) == 1:
        return at * rows[0][1] / max(rows[0][0], 1e-9)
    above = next((i for i, (x, _) in enumerate(rows) if x >= at), len(rows) - 1)
    (x0, y0), (x1, y1) = rows[max(0, above - 1)], rows[max(1, above)]
    return y0 + (y1 - y0) * (at - x0) / (x1 - x0)


def candidate(
    label: str, latency: Latency, accuracy: float | None, chosen: bool = False
) -> Candidate:
    return Candidate(
        label, latency.value_ms, latency.low_ms, latency.high_ms, accuracy, chosen=chosen
    )


def candidates(trials: Iterable[Trial]) -> list[Candidate]:
    """Rows of the record for what was tried, numbered from 1."""
    rows = []
    for number, t in enumerate(trials, start=1):
        if t.failed:
            continue  # it has no figures: the report names it among what was left alone
        number_format = f", {t.name}" if t.formats else ""
        row = candidate(f"tried {number}{number_format}", t.latency, t.held)
        rows.append(replace(row, predicted_ms=t.expected_ms, predicted_rise=t.loss))
    return rows
