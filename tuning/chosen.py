"""What the search decided for the steps of a recipe that leave it open."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..adjusters import drop_blocks
from ..adjusters.plan import Context, Plan
from ..adjusters.prune import left_alone, seen_by
from ..adjusters.registry import ADJUSTERS
from ..configs.recipe import Step
from ..configs.settings import DropBlocks, Quantize
from ..core.records import LeftAlone
from ..graph.blocks import Block
from ..graph.edits import leave_out
from ..graph.groups import Group, keep_units, units_in
from ..graph.layers import layers_of
from ..graph.quantization import quantizable

NOT_TAKEN = "the search found a better way to the target, or the format is no faster here"
KEPT = "kept as it is: no faster so on this machine, or other layers save the time for less"
NOTHING = "the number format alone is enough, so nothing is removed"
Dropped = Mapping[Group, list[int]]


@dataclass(frozen=True)
class Chosen:
    """Units to drop of groups of the graph as it was searched, and blocks to leave out, in its
    order; `no_block` says why there are none. Of the recipe's `formats` only those in `taken` are:
    by step, the nodes of the layers that take it, None for all. `rough`: only time is asked for.
    """

    dropped: Dropped
    blocks: tuple[Block, ...] = ()
    no_block: str = ""
    formats: tuple[Step, ...] = ()
    taken: tuple[tuple[Step, frozenset[str] | None], ...] = ()
    rough: bool = False

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
        if any(step is s for s in self.formats):
            return self._format(step, context)
        return None

    def takes(self, step: Step) -> bool:
        return any(step is s for s, _ in self.taken)

    @property
    def removes_nothing(self) -> bool:
        return bool(self.taken) and not self.blocks and not any(self.dropped.values())

    def _format(self, step: Step, context: Context) -> Plan | None:
        if not self.takes(step):
            return Plan((), (LeftAlone(step.name, NOT_TAKEN),))
        nodes = next(nodes for s, nodes in self.taken if s is step)
        if nodes is None:
            return None
        open_ones = [layer for layer in layers_of(context.module) if quantizable(layer.node)]
        wanted = {layer.name for layer in open_ones if layer.node.name in nodes}
        settings = step.settings
        assert isinstance(settings, Quantize)
        only = settings.only(wanted, quickly=self.rough)
        plan = ADJUSTERS[step.name].plan(context, only)
        kept = {layer.name for layer in open_ones if settings.takes(layer.name)} - wanted
        left = (replace(row, reason=KEPT) if row.what in kept else row for row in plan.left_alone)
        return replace(plan, left_alone=tuple(left))

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
