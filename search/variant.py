"""A graph under way through a recipe, and a finished step as the journal keeps it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch.fx import GraphModule

from ..core.records import LeftAlone, StepRecord
from ..graph.edits.apply import Edit, apply, edits_from_json


@dataclass
class Variant:
    """A graph with the edits that made it from the capture."""

    module: GraphModule
    edits: list[Edit] = field(default_factory=list)
    steps: list[StepRecord] = field(default_factory=list)
    left_alone: list[LeftAlone] = field(default_factory=list)


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

    def redo(self, variant: Variant) -> None:
        """Take the variant to where it was after this step."""
        edits = edits_from_json(self.edits)
        apply(variant.module, edits)
        if self.weights:
            variant.module.load_state_dict(self.weights)
        variant.edits.extend(edits)
        variant.steps.append(self.step)
        variant.left_alone.extend(self.left_alone)
