"""Bounds of numbers and names, wherever they come from: typed in, in a recipe or read back.

Standard library only: fields of records say it as `Annotated[float, Within(0)]`, flags ask the
same objects.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Annotated, Any

MAX_THREADS = 1024  # torch's thread pools end the process at some ten thousands
MAX_BATCH = 1 << 20
MAX_DEPTH = 64  # of what a record holds as it is, such as a step's settings


@dataclass(frozen=True)
class Within:
    """Numbers from `low` to `high`, finite unless said otherwise; NaN never is within.

    `above` and `below` leave that end out.
    """

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    below: bool = False
    finite: bool = True

    def unlike(self, value: Any) -> str:
        """The bound that `value` breaks, in words; empty if it keeps it."""
        finite = not self.finite or isinstance(value, int) or math.isfinite(value)
        over = value > self.low if self.above else value >= self.low
        under = value < self.high if self.below else value <= self.high
        if finite and over and under:
            return ""
        return self.words() if finite else f"a finite number {self._ends()}".rstrip()

    def words(self) -> str:
        return self._ends() or "a finite number"

    def _ends(self) -> str:
        ends = []
        if self.low > -math.inf:
            ends.append(f"{'above' if self.above else 'at least'} {_number(self.low)}")
        if self.high < math.inf:
            ends.append(f"{'below' if self.below else 'at most'} {_number(self.high)}")
        return " and ".join(ends)


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


@dataclass(frozen=True)
class Like:
    """Texts that the whole of `pattern` matches, called `meant`."""

    pattern: str
    meant: str

    def unlike(self, value: object) -> str:
        good = isinstance(value, str) and re.fullmatch(self.pattern, value, re.ASCII)
        return "" if good else self.meant


DEVICE = Like(r"cpu|cuda(:[0-9]{1,3})?", "`cpu`, `cuda` or `cuda:N`")
THREADS = Within(1, MAX_THREADS)
BATCH = Within(1, MAX_BATCH)
SEED = Within(0, 2**63 - 1)  # what torch takes
PERCENTILE = Within(0.1, 99.9)  # beyond, no run of a few seconds has the samples for it
# 2^63: what torch and other languages hold in an integer.
Count = Annotated[int, Within(0, 2**63 - 1)]
Finite = Annotated[float, Within()]
Score = Annotated[float, Within(finite=False)]  # a squared error may overflow
Time = Annotated[float, Within(0.0)]
Relative = Annotated[float, Within(0.0)]  # an error, as a part of what it is the error of
Positive = Annotated[float, Within(0.0, above=True)]
Percentile = Annotated[float, PERCENTILE]


def foreign_json(value: object, depth: int = 0) -> str:
    """The reason why `value` can't be written and shown as the JSON it came from; empty if it
    can."""
    if depth > MAX_DEPTH:
        return f"values nested deeper than {MAX_DEPTH}"
    if isinstance(value, int) and value.bit_length() > 1024:
        return f"a number of {value.bit_length()} bits"
    if not isinstance(value, (dict, list, tuple)):
        return ""
    inner = value.values() if isinstance(value, dict) else value
    return next((reason for v in inner if (reason := foreign_json(v, depth + 1))), "")
