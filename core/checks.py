"""Findings of `check` and `doctor`: frozen facts with a JSON round trip."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from .records import FORMAT_VERSION, Comparison, Latency, Machine, Notice, Quality, Target

Outcome = Literal["passed", "failed", "inconclusive", "skipped"]
State = Literal["good", "watch", "bad"]


@dataclass(frozen=True)
class Case:
    """One thing that was checked; `code` is what the command exits with where it did not pass."""

    name: str
    outcome: Outcome
    text: str
    code: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Check:
    """An artifact measured and evaluated again. `against`: speed-up over the stored record."""

    folder: str
    created: str
    version: str
    machine: Machine
    target: Target
    cases: tuple[Case, ...]
    latency: Latency
    quality: Quality | None = None
    against: Comparison | None = None
    format_version: int = field(default=FORMAT_VERSION)


@dataclass(frozen=True)
class Finding:
    """One fact about a machine, and what helps where it makes timings unreliable."""

    what: str
    found: str
    state: State = "good"
    remedy: str = ""


@dataclass(frozen=True)
class Examination:
    """`noise`: one model measured against itself; `floor` is the smallest change that would show
    (a fraction), `between` the spread of repeated measurements."""

    machine: Machine
    findings: tuple[Finding, ...]
    noise: Comparison
    floor: float
    between: float
    notices: tuple[Notice, ...] = ()
    format_version: int = field(default=FORMAT_VERSION)
