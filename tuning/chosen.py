"""What the search decided for the steps of a recipe that leave it open."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..adjusters import drop_blocks
from ..adjusters.plan import Context, Plan
from ..adjusters.prune import left_alone, seen_by
from ..configs.recipe import Step
from ..configs.settings import DropBlocks
from ..core.records import LeftAlone
from ..graph.blocks import Block
from ..graph.edits import leave_out
from ..graph.groups import Group, keep_units, units_in

NOT_TAKEN = "the search found a better way to the target, or the format is no faster here"
NOTHING = "the number format alone is enough, so nothing is removed"
Dropped = Mapping[Group, list[int]]


@dataclass(frozen=True)
class Chosen:
    """Units to drop of groups of the graph as it was searched, and blocks to leave out, in its
    order; `no_block` says why there are none. Of the recipe's `formats` only `taken` is."""

    dropped: Dropped
    blocks: tuple[Block, ...] = ()
    no_block: str = ""
    formats: tuple[Step, ...] = ()
    taken: Step | None = None

    def plan(self, step: Step, context: Context) -> Plan | None:
        """The step's plan, None where it leaves nothing open."""
        if step.name == "prune":
            return self._prune(step, context)
        if isinstance(step.settings, DropBlocks) and step.settings.count is None:
            if self.removes_nothing:
                return Plan((), (LeftAlone("blocks", NOTHING),))
            edits = leave_out(self.blocks)
            left = drop_blocks.left_alone(context, step.settings)
            return Plan(edits, left if edits else (LeftAlone("blocks", self.no_block), *left))
        if step in self.formats and step is not self.taken:
            return Plan((), (LeftAlone(step.name, NOT_TAKEN),))
        return None

    @property
    def removes_nothing(self) -> bool:
        return self.taken is not None and not self.blocks and not any(self.dropped.values())

    def _prune(self, step: Step, context: Context) -> Plan:
        if self.removes_nothing:
            return Plan((), (LeftAlone("channels", NOTHING),))
        context = seen_by(context, step.settings)
        dropped: dict[str, list[int]] = {}
        for group, units in self.dropped.items():
            # A block that was left out took its own groups along; others may bear another name.
            name, here = units_in(context.analysis, group, units) or ("", [])
            if here:
                # Groups of the searched graph may be one without the blocks.
                dropped.setdefault(name, []).extend(here)
        return Plan(
            tuple(keep_units(context.analysis, dropped)), left_alone(context, step.settings)
        )
