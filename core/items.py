"""What became of each checkpoint of a batch: frozen facts with a JSON round trip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

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
_TELLING: tuple[tuple[int, tuple[Status, ...]], ...] = (
    (1, ("failed", "out of memory", "killed", "too slow", "stopped")),
    (4, ("accuracy limit broken",)),
    (3, ("missed",)),
    (5, ("inconclusive",)),
)


@dataclass(frozen=True)
class Item:
    """One row. `key` stands for checkpoint, recipe, target and machine; times in ms."""

    name: str
    checkpoint: str
    key: str
    status: Status
    reason: str = ""
    code: int = 0
    attempts: int = 1
    seconds: float = 0.0
    reused: bool = False
    original_ms: float | None = None
    result_ms: float | None = None
    speedup: float | None = None
    metric: str = ""
    accuracy_before: float | None = None
    accuracy_after: float | None = None
    parameters_before: int = 0
    parameters_after: int = 0
    summary: str = ""

    def measured(self, record: Record) -> Item:
        """This row with what its run's record says."""
        quality, found = record.quality, record.speedup
        return replace(
            self,
            status="done" if self.status == "met" and record.verdict == "none" else self.status,
            original_ms=record.baseline.value_ms,
            result_ms=record.final.value_ms if record.final else None,
            speedup=found.speedup if found else None,
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
    seconds: float = 0.0
    format_version: int = FORMAT_VERSION


def exit_code(items: Sequence[Item]) -> int:
    """0 where every item is met, else the most telling code: 1, 4, 3, 5."""
    found = {item.status for item in items}
    return next((code for code, statuses in _TELLING if found & set(statuses)), 0)
