"""Results of each checkpoint of a batch: frozen facts with a JSON round trip."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from .bounds import Count, Score, Time, Within
from .records import FORMAT_VERSION, Machine, Record

Status = Literal[
    "met", "done", "inconclusive", "missed", "accuracy limit broken", "failed", "out of memory",
    "killed", "too slow", "stopped",
]  # fmt: skip
# By exit code of one run; `done` is 0 where no target was set.
OF_CODE: dict[int, Status] = {
    0: "met", 3: "missed", 4: "accuracy limit broken", 5: "inconclusive",
}  # fmt: skip
WRITTEN: tuple[Status, ...] = ("met", "done", *OF_CODE.values())  # an artifact is there


@dataclass(frozen=True)
class Item:
    """One row. `key` stands for checkpoint, recipe, target and machine; times in ms."""

    name: str
    checkpoint: str
    key: str
    status: Status
    reason: str = ""
    code: Annotated[int, Within(-255, 255)] = 0
    attempts: Count = 1
    seconds: Time = 0.0
    reused: bool = False
    original_ms: Time | None = None
    result_ms: Time | None = None
    speedup: Time | None = None
    metric: str = ""
    accuracy_before: Score | None = None
    accuracy_after: Score | None = None
    parameters_before: Count = 0
    parameters_after: Count = 0
    summary: str = ""

    def measured(self, record: Record) -> Item:
        """This row with what its run's record says."""
        quality, comparison = record.quality, record.speedup
        return replace(
            self,
            status="done" if self.status == "met" and record.verdict == "none" else self.status,
            original_ms=record.baseline.value_ms,
            result_ms=record.final.value_ms if record.final else None,
            speedup=comparison.speedup if comparison else None,
            metric=quality.metric if quality else "",
            accuracy_before=quality.baseline if quality else None,
            accuracy_after=quality.final if quality else None,
            parameters_before=record.parameters_before,
            parameters_after=record.parameters_after,
            summary=record.summary,
        )


@dataclass(frozen=True)
class Index:
    """All rows of a batch, in the order they were asked for."""

    created: str
    version: str
    machine: Machine
    items: tuple[Item, ...]
    seconds: Time = 0.0
    format_version: int = FORMAT_VERSION
