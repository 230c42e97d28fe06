"""Flags that would accept what this machine can reach, where target and accuracy limit collide."""

from __future__ import annotations

import math
from collections.abc import Iterable

from ..core.records import Record
from ..reporting.facts import FRACTIONS
from .choice import EPSILON, Standing
from .target import is_set, share_used


def advice(record: Record, known: Iterable[Standing]) -> tuple[str, ...]:
    """One sentence for each way out; none where the target is met within the limit.

    `known`: what has been measured of other variants, before training.
    """
    final, quality, limit = record.judged, record.quality, record.max_drop
    if final is None or record.speedup is None or not is_set(record.target):
        return ()
    drop = quality.drop if quality else None
    rows = []
    above = record.limit_broken or record.limit_in_doubt
    if record.verdict == "met" and above and drop is not None:
        lost = _lost(record, drop)
        rows.append(f"{_goal(record)} costs {lost}: `--max-drop {_up(drop):g}` accepts that")
    if record.verdict == "missed" or record.limit_broken:
        shares = [s.share for s in known if limit is not None and s.drop <= limit + EPSILON]
        if not record.limit_broken:
            shares.append(share_used(record.target, final, record.speedup))
        if shares and math.isfinite(least := min(shares)):
            within = "" if drop is None or limit is None else f"within {_lost(record, limit)} "
            rows.append(f"{within}{_reached(record, least)}")
    return tuple(rows)


def _goal(record: Record) -> str:
    if record.target.speedup is not None:
        return f"{record.target.speedup:g}x"
    return f"{record.target.ms:g} ms"


def _reached(record: Record, share: float) -> str:
    """The reach of what is known, and the flag that asks for no more."""
    if record.target.speedup is not None:
        gain = math.floor(100 * record.target.speedup / share) / 100
        if gain <= 1.0:
            return "nothing faster than the original is known"
        return f"{gain:g}x is reached: `--target-speedup {gain:g}`"
    assert record.target.ms is not None
    ms = _up(share * record.target.ms)
    return f"{ms:g} ms is reached: `--target-ms {ms:g}`"


def _lost(record: Record, drop: float) -> str:
    fraction = record.quality is None or record.quality.metric in FRACTIONS
    points = f"{100 * drop:.3g}"
    if fraction:
        return f"{points} point{'' if points == '1' else 's'}"
    return f"{drop:.3g} of the metric"


def _up(value: float) -> float:
    """Rounded up to three digits, so that the flag accepts what was measured."""
    digits = 10.0 ** (math.floor(math.log10(value)) - 2) if value > 0 else 1.0
    return float(f"{math.ceil(value / digits - 1e-9) * digits:.3g}")
