"""All that was tried as CSV, for a spreadsheet or a plot of one's own."""

from __future__ import annotations

import csv
import io

from ..core.records import Candidate, Record
from .text import clean

HEAD = (
    "label", "latency_ms", "latency_low_ms", "latency_high_ms", "accuracy", "accuracy_on",
    "predicted_ms", "predicted_rise_in_loss", "chosen", "on_front",
)  # fmt: skip


def render(record: Record) -> str:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(HEAD)
    best = front(record.candidates)
    for c in record.candidates:
        rows.writerow((
            c.label, c.latency_ms, c.latency_low_ms, c.latency_high_ms, c.accuracy,
            data_of(record, c), c.predicted_ms, c.predicted_rise, c.chosen, c in best,
        ))  # fmt: skip
    return clean(text.getvalue().rstrip("\n"))


def data_of(record: Record, candidate: Candidate) -> str:
    """The data that its accuracy was taken on: two of them can't be compared."""
    if record.quality is not None and record.quality.judged is not None:
        return "the half of the evaluation data that judges"
    return "held-out training data" if candidate.predicted_ms is not None else "evaluation data"


def front(candidates: tuple[Candidate, ...]) -> tuple[Candidate, ...]:
    """Of what the search tried, those that no other beats in both latency and accuracy, the
    fastest first."""
    tried = [c for c in candidates if c.predicted_ms is not None and c.accuracy is not None]
    best: list[Candidate] = []
    for c in sorted(tried, key=lambda c: (c.latency_ms, -(c.accuracy or 0.0))):
        if not best or (c.accuracy or 0.0) > (best[-1].accuracy or 0.0):
            best.append(c)
    return tuple(best)
