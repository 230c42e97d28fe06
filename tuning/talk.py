"""What long work says while it runs. `cli` shows it; tests and batch jobs keep quiet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..configs.recipe import Recipe

OPENING = ("loading", "capturing the graph", "measuring the baseline", "choosing kernels")
SEARCH = ("ranking channel groups", "timing layers at other widths", "searching")
VERIFYING = "verifying in a fresh process"


class Talk(Protocol):
    def expect(self, stages: Sequence[str], seconds: float | None = None) -> None:
        """The stages to come, in order, instead of what was expected; `seconds` limit the run."""

    def stage(self, text: str, total: float | None = None) -> None:
        """A new stage begins, or part of one where another is expected next.

        `total`: units of work, None where unknown.
        """

    def advance(self, amount: float = 1.0) -> None: ...

    def note(self, text: str) -> None:
        """One fact worth a line that stays."""


class Quiet:
    def expect(self, stages: Sequence[str], seconds: float | None = None) -> None:
        pass

    def stage(self, text: str, total: float | None = None) -> None:
        pass

    def advance(self, amount: float = 1.0) -> None:
        pass

    def note(self, text: str) -> None:
        pass


def expected(recipe: Recipe, *, opened: bool = False, search: bool = False) -> list[str]:
    """The stages of a run to come; `opened`: the model is loaded and measured already."""
    opening, steps = () if opened else OPENING, [s.name for s in recipe.adjust]
    return [*opening, *(SEARCH if search else ()), *steps, VERIFYING]
