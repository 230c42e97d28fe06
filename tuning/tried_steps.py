"""A step that was tried: as the journal keeps it, and as its row tells of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..configs.recipe import Step
from ..core.records import Comparison, LeftAlone, StepRecord
from ..graph.edits.apply import DropBlock, Edit, FoldBatchNorm, Slice, apply, edits_from_json
from ..search.variant import Variant
from .evaluation import Drop

Status = Literal["kept", "rolled back", "skipped"]


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


def step_row(step: Step, status: Status, reason: str) -> StepRecord:
    return StepRecord(step.name, plain_settings(step), status, reason)


def why_unfitted(edits: Sequence[Edit]) -> str:
    if any(isinstance(e, FoldBatchNorm) for e in edits):
        return "batch norms are folded already, so layers give other values than the original's"
    if not any(isinstance(e, (Slice, DropBlock)) for e in edits):
        return "nothing was removed before it"
    return "no layer that reads what was removed could be fitted: weights are shared or computed"


def why_kept(comparison: Comparison, as_written: bool) -> str:
    if comparison.finding == "faster":
        return "measured faster"
    if comparison.finding == "slower":
        reason = "as the recipe is written" if as_written else "since the search built upon it"
        return f"measured slower, kept {reason}"
    return "no significant change of latency"


def plain_settings(step: Step) -> dict[str, Any]:
    return dict(step.settings.model_dump(mode="json"))
