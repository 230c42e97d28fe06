"""The rungs that are asked for, as targets of the search."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ...core.errors import UsageError
from ...core.ladder_record import MAX_RUNGS
from ...core.records import Target

RUNGS_ASKED = 4
WIDEST = 8.0  # times as fast as the original: what `--rungs` spans at most
NEAREST = 1.02  # times the fastest trial, which training and the fresh process change a little


@dataclass(frozen=True)
class RungGoals:
    """`rungs` in all, the top included; or a target each: `targets_ms`, or `speedups` over the
    original, of which 1 is the top. Raises UsageError for others."""

    rungs: int | None = None
    targets_ms: tuple[float, ...] = ()
    speedups: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        given = [self.rungs is not None, bool(self.targets_ms), bool(self.speedups)]
        if sum(given) > 1:
            raise UsageError("`--rungs`, `--targets-ms` and `--speedups` exclude each other.")
        if self.rungs is not None and not 2 <= self.rungs <= MAX_RUNGS:
            raise UsageError(f"`--rungs` is {self.rungs}; it must be at least 2 and at most 64.")
        _check("--targets-ms", self.targets_ms, 0.0, strictly=True)
        _check("--speedups", self.speedups, 1.0, strictly=False)

    @property
    def named(self) -> bool:
        """True if each rung has a target of the user's."""
        return bool(self.targets_ms or self.speedups)

    @property
    def count(self) -> int:
        """Rungs below the top."""
        if self.named:
            return len(self.targets(Target(), 1.0, 1.0))
        return (self.rungs or RUNGS_ASKED) - 1

    def targets(self, usual: Target, slowest: float, fastest: float) -> list[Target]:
        """Targets of the rungs below the top, the easiest first. Without the user's own they are
        spread evenly, by ratios, between the speed-ups `slowest` of the top and `fastest`."""
        if self.targets_ms:
            return [replace(usual, ms=ms) for ms in sorted(set(self.targets_ms), reverse=True)]
        if self.speedups:
            return [replace(usual, speedup=s) for s in sorted(set(self.speedups)) if s > 1.0]
        end = min(WIDEST, fastest / NEAREST)
        if end <= NEAREST * slowest:
            return []
        step = (end / slowest) ** (1.0 / self.count)
        found = [round(slowest * step**i, 2) for i in range(1, self.count + 1)]
        return [replace(usual, speedup=s) for s in dict.fromkeys(found) if s > 1.0]


def goal_name(target: Target) -> str:
    """Of the rung's folder, and in messages: `2x`, `4ms`."""
    return f"{target.speedup:g}x" if target.speedup is not None else f"{target.ms:g}ms"


def numbers_of(option: str, text: str | None) -> tuple[float, ...]:
    """Numbers with commas between them. Raises UsageError."""
    try:
        return tuple(float(word) for word in (text or "").split(",") if word.strip())
    except ValueError as error:
        raise UsageError(
            f"`{option}` is {text!r}; it must be numbers with commas between them, such as 2,4,8."
        ) from error


def _check(option: str, values: Sequence[float], least: float, *, strictly: bool) -> None:
    if len(values) >= MAX_RUNGS:
        raise UsageError(f"`{option}` names {len(values)} rungs; there may be {MAX_RUNGS - 1}.")
    for value in values:
        if not math.isfinite(value) or value < least or (strictly and value == least):
            meant = f"above {least:g}" if strictly else f"at least {least:g}"
            raise UsageError(f"`{option}` holds {value:g}; each must be {meant}.")
