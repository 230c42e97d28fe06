"""Exit codes of commands that came to an end (design.md); those of errors are in `errors.py`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from .checks import Case
from .items import OF_CODE, Item
from .records import Record

CODES = {"met": 0, "none": 0, "missed": 3, "inconclusive": 5}
ACCURACY_LIMIT = 4
BY_URGENCY = (1, ACCURACY_LIMIT, CODES["missed"], CODES["inconclusive"])
_OF_STATUS = {"done": 0, **{status: code for code, status in OF_CODE.items()}}


def run_exit_code(record: Record, max_drop: float) -> int:
    """0 met, 3 missed, 4 accuracy limit broken, 5 inconclusive, the limit included."""
    record = replace(record, max_drop=max_drop)
    if record.verdict in ("met", "none"):
        if record.limit_broken:
            return ACCURACY_LIMIT
        if record.limit_in_doubt:
            return CODES["inconclusive"]
    return CODES[record.verdict]


def ladder_exit_code(verdicts: Collection[str], limit_broken: bool) -> int:
    """By the targets that a user named: 3 where one is missed, 4 accuracy limit broken, 5
    inconclusive."""
    codes = {CODES[verdict] for verdict in verdicts}
    return _most_telling(codes | ({ACCURACY_LIMIT} if limit_broken else set()))


def check_exit_code(cases: Sequence[Case]) -> int:
    """0 where nothing failed, else the most telling code of the cases that did not pass."""
    return _most_telling({c.code for c in cases if c.outcome in ("failed", "inconclusive")})


def batch_exit_code(items: Sequence[Item]) -> int:
    """0 where every item is met, else the most telling code; a run that never ended counts as 1."""
    return _most_telling({_OF_STATUS.get(item.status, 1) for item in items})


def _most_telling(codes: Collection[int]) -> int:
    return next((code for code in BY_URGENCY if code in codes), 0)
