"""Exit codes of runs that came to an end; those of errors are in `errors.py`."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from .checks import Case
from .items import Item, Status
from .records import Record

FAILED, MISSED, ACCURACY_LIMIT, INCONCLUSIVE = 1, 3, 4, 5
CODES = {"met": 0, "none": 0, "missed": MISSED, "inconclusive": INCONCLUSIVE}
# Of several results the most telling one counts: a failure hides what the others would say.
TELLING = (FAILED, ACCURACY_LIMIT, MISSED, INCONCLUSIVE)
_OF_STATUS: dict[Status, int] = {
    "failed": FAILED,
    "out of memory": FAILED,
    "killed": FAILED,
    "too slow": FAILED,
    "stopped": FAILED,
    "accuracy limit broken": ACCURACY_LIMIT,
    "missed": MISSED,
    "inconclusive": INCONCLUSIVE,
}


def record_exit_code(record: Record, max_drop: float) -> int:
    """0 met, 3 missed, 4 accuracy limit broken, 5 inconclusive."""
    drop = record.quality.drop if record.quality else None
    if drop is not None and drop > max_drop + 1e-9 and record.verdict in ("met", "none"):
        return ACCURACY_LIMIT
    return CODES[record.verdict]


def batch_exit_code(items: Sequence[Item]) -> int:
    """0 if every item is met, else the most telling code."""
    return _most_telling({_OF_STATUS.get(item.status, 0) for item in items})


def check_exit_code(cases: Sequence[Case]) -> int:
    """0 if nothing failed, else the most telling code."""
    return _most_telling({c.code for c in cases if c.outcome in ("failed", "inconclusive")})


def _most_telling(codes: Collection[int]) -> int:
    return next((code for code in TELLING if code in codes), 0)
