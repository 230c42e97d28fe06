"""Progress that long work reports. `cli` shows it; tests and batch jobs keep silent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Progress(Protocol):
    def expect(self, stages: Sequence[str], seconds: float | None = None) -> None:
        """The stages to come, in order, instead of what was expected; `seconds` limit the run."""

    def stage(self, text: str, total: float | None = None) -> None:
        """A new stage begins, or part of one where another is expected next.

        `total`: units of work, None where unknown.
        """

    def advance(self, amount: float = 1.0) -> None: ...

    def note(self, text: str) -> None:
        """One fact worth a line that stays."""


class Silent:
    def expect(self, stages: Sequence[str], seconds: float | None = None) -> None:
        pass

    def stage(self, text: str, total: float | None = None) -> None:
        pass

    def advance(self, amount: float = 1.0) -> None:
        pass

    def note(self, text: str) -> None:
        pass
