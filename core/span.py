"""The sizes that one dimension of an input may have."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

_ENDS = re.compile(r"([0-9]{1,9})\.\.([0-9]{1,9})?", re.ASCII)
MOST = 1 << 30


@dataclass(frozen=True)
class Span:
    """Multiples of `multiple` from `low` to `high`, or to any size where that is None.

    Dimensions of one name in `tied` have the same size.
    """

    low: int = 1
    high: int | None = None
    multiple: int = 1
    tied: str = ""

    @classmethod
    def parse(cls, text: str) -> Span:
        """`LOW..HIGH`, or `LOW..` for any size from there. Raises ValueError."""
        match = _ENDS.fullmatch(text)
        if match is None:
            raise ValueError("a varying size is `LOW..HIGH`, or `LOW..` without a largest one")
        low, high = int(match[1]), int(match[2]) if match[2] else None
        if low < 1 or (high is not None and high < low):
            raise ValueError("a varying size goes from 1 at least up to its largest one")
        return cls(low, high)

    def text(self) -> str:
        """As recipes say it."""
        return f"{self.low}..{'' if self.high is None else self.high}"

    def times(self, factor: int) -> Span:
        """Of sizes so many times as large."""
        high = None if self.high is None else factor * self.high
        return replace(self, low=factor * self.low, high=high, multiple=factor * self.multiple)

    def takes(self, size: int) -> bool:
        above = self.high is not None and size > self.high
        return size >= self.low and not above and size % self.multiple == 0

    def words(self) -> str:
        of = f", a multiple of {self.multiple}" if self.multiple > 1 else ""
        return f"{self.low} or more{of}" if self.high is None else f"{self.low} to {self.high}{of}"

    def ends(self, size: int) -> tuple[int, int]:
        """A small and a large size beside `size`, at most twice as large."""
        low = -(-self.low // self.multiple) * self.multiple
        most = 2 * size if self.high is None else min(self.high, 2 * size)
        return min(low, size), max(size, most // self.multiple * self.multiple)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def spans_from_json(value: object) -> dict[int, Span]:
    """Of an input's specification, by axis. Raises ValueError where it is none."""
    if not isinstance(value, Mapping):
        raise ValueError("what varies is not given by axis")
    spans: dict[int, Span] = {}
    for axis, row in value.items():
        if not (str(axis).isascii() and str(axis).isdigit() and isinstance(row, Mapping)):
            raise ValueError("what varies is not given by axis")
        span = Span(**row) if set(row) <= set(asdict(Span())) else None
        if span is None or not _sound(span):
            raise ValueError("a varying size has no ends")
        spans[int(axis)] = span
    return spans


def spans_to_json(spans: Mapping[int, Span]) -> dict[str, Any]:
    return {str(axis): span.to_json() for axis, span in sorted(spans.items())}


def _sound(span: Span) -> bool:
    numbers = (span.low, span.multiple, span.low if span.high is None else span.high)
    return (
        all(type(n) is int and 1 <= n <= MOST for n in numbers)
        and isinstance(span.tied, str)
        and (span.high is None or span.low <= span.high)
    )
