"""A step that was tried: as the journal keeps it, and as its row tells of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..core.records import LeftAlone, StepRecord
from ..graph.edits.apply import apply, edits_from_json
from ..search.variant import Variant
from .evaluation import Drop


@dataclass(frozen=True)
class Done:
    """A finished step as the journal keeps it. `weights` only where edits don't make them.

    `runtime`: what the variant runs under after it.
    """

    step: StepRecord
    edits: list[dict[str, Any]]
    left_alone: tuple[LeftAlone, ...]
    weights: dict[str, Any]
    runtime: str

    def redone(self, variant: Variant) -> Variant:
        """The variant as it was after this step."""
        edits = edits_from_json(self.edits)
        module = apply(variant.module, edits)
        if self.weights:
            module.load_state_dict(self.weights)
        return variant.edited(module, edits).with_step(self.step, self.left_alone)


@dataclass(frozen=True)
class Seen:
    """The effect of a step on outputs or metric, in words; `drop` against the original."""

    text: str = ""
    drop: Drop | None = None

    @property
    def figures(self) -> tuple[float | None, float | None]:
        return (self.drop.before, self.drop.after) if self.drop else (None, None)
