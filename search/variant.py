"""A graph on its way through a recipe, complete: what made it and how it runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from torch.fx import GraphModule

from ..backends.registry import PLAIN
from ..core.records import LeftAlone, RuntimeCost, StepRecord
from ..graph.edits.apply import Edit


@dataclass(frozen=True)
class Variant:
    """A graph with the edits that made it from the capture.

    `steps`: rows of the recipe's steps so far. `runtime`: the back end's name it runs under, with
    `blob` compiled ahead of time where that needs one; `runtime_costs`: what others took.
    """

    module: GraphModule
    edits: tuple[Edit, ...] = ()
    steps: tuple[StepRecord, ...] = ()
    left_alone: tuple[LeftAlone, ...] = ()
    runtime: str = PLAIN
    blob: bytes | None = None
    runtime_costs: tuple[RuntimeCost, ...] = ()

    def edited(self, module: GraphModule, edits: Iterable[Edit]) -> Variant:
        """`module`, which these edits make of this variant's."""
        return replace(self, module=module, edits=(*self.edits, *edits))

    def with_step(self, row: StepRecord, left_alone: Iterable[LeftAlone] = ()) -> Variant:
        return replace(self, steps=(*self.steps, row), left_alone=(*self.left_alone, *left_alone))

    def under(self, runtime: str) -> Variant:
        """The same graph under another runtime: nothing that was measured or compiled holds."""
        if runtime == self.runtime:
            return self
        return replace(self, runtime=runtime, blob=None, runtime_costs=())
