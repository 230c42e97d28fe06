"""Exit codes of runs that came to an end (design.md); those of errors are in `errors.py`."""

from __future__ import annotations

from .records import Record

CODES = {"met": 0, "none": 0, "missed": 3, "inconclusive": 5}
ACCURACY_LIMIT = 4


def exit_code(record: Record, max_drop: float) -> int:
    """0 met, 3 missed, 4 accuracy limit broken, 5 inconclusive."""
    drop = record.quality.drop if record.quality else None
    if drop is not None and drop > max_drop + 1e-9 and record.verdict in ("met", "none"):
        return ACCURACY_LIMIT
    return CODES[record.verdict]
