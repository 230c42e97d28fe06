"""The search's decisions about the steps of a recipe that leave something open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ..adjusters import drop_blocks
from ..adjusters.plan import Context, Plan
from ..adjusters.prune import groups_left_alone, seen_by
from ..adjusters.registry import ADJUSTERS
from ..configs.base_settings import ByLayer
from ..configs.layer_settings import LowRank, Quantize
from ..configs.recipe import Step
from ..configs.settings import DropBlocks, Prune
from ..core.records import LeftAlone
from ..graph.analysis.groups import Group, keep_units, units_in
from ..graph.blocks import Block
from ..graph.edits.apply import leave_out
from ..graph.edits.factoring import factorable
from ..graph.edits.quantization import quantizable
from ..graph.layers import Layer, layers_of

NOT_TAKEN = "the search found a better way to the target, or the format is no faster here"
KEPT = "kept as it is: no faster so on this machine, or other layers save the time for less"
NOTHING = "the number format alone is enough, so nothing is removed"
Dropped = Mapping[Group, list[int]]


@dataclass(frozen=True)
class StepDecision:
    """A step of the recipe that is carried out: for the layers of `nodes`, None for all it can.
    `rank`: of what layers are split into."""

    step: Step
    nodes: frozenset[str] | None = None
    rank: int = 0


@dataclass(frozen=True)
class Decision:
    """Units to drop of groups of the graph as it was searched, and blocks to leave out, in its
    order; `no_block` says why there are none. Of the recipe's `open` steps only those `taken` are
    carried out. `rough`: only time is asked for.
    """

    dropped: Dropped
    blocks: tuple[Block, ...] = ()
    no_block: str = ""
    open: tuple[Step, ...] = ()
    taken: tuple[StepDecision, ...] = ()
    rough: bool = False

    def plan(self, step: Step, context: Context) -> Plan | None:
        """The step's plan, None where it leaves nothing open."""
        if step.name == "prune":
            return self._prune(step, context)
        if isinstance(step.settings, DropBlocks) and step.settings.is_open():
            if self.removes_nothing:
                return Plan((), (LeftAlone("blocks", NOTHING),))
            edits = leave_out(self.blocks)
            left = drop_blocks.blocks_left_alone(context, step.settings)
            return Plan(edits, left if edits else (LeftAlone("blocks", self.no_block), *left))
        if any(step is s for s in self.open):
            return self._layers(step, context)
        return None

    def decides(self, step: Step) -> bool:
        """True if the search, not the recipe, says what the step does."""
        blocks = isinstance(step.settings, DropBlocks) and step.settings.is_open()
        return step.name == "prune" or blocks or any(step is s for s in self.open)

    def takes(self, step: Step) -> bool:
        return any(step is taken.step for taken in self.taken)

    @property
    def removes_nothing(self) -> bool:
        return bool(self.taken) and not self.blocks and not any(self.dropped.values())

    def _layers(self, step: Step, context: Context) -> Plan | None:
        rows = [taken for taken in self.taken if taken.step is step]
        if not rows:
            return Plan((), (LeftAlone(step.name, NOT_TAKEN),))
        if rows[0].nodes is None:
            return None
        settings, layers = step.settings, list(layers_of(context.module))
        assert isinstance(settings, ByLayer)
        plans: list[tuple[set[str], Plan]] = []
        for taken in rows:
            names = {la.name for la in layers if la.node.name in (taken.nodes or ())}
            only = settings.restricted_to(names, **({"rank": taken.rank} if taken.rank else {}))
            only = only.rough() if self.rough else only
            plans.append((names, ADJUSTERS[step.name].plan(context, only)))
        able = (la.name for la in layers if _able(la, settings))
        return _joined(plans, {name for name in able if settings.selects(name)})

    def _prune(self, step: Step, context: Context) -> Plan:
        if self.removes_nothing:
            return Plan((), (LeftAlone("channels", NOTHING),))
        assert isinstance(step.settings, Prune)
        context = seen_by(context, step.settings)
        dropped: dict[str, list[int]] = {}
        for group, units in self.dropped.items():
            # A block that was left out took its own groups along; others may bear another name.
            name, here = units_in(context.analysis, group, units) or ("", [])
            if here:
                # Groups of the searched graph may be one without the blocks.
                dropped.setdefault(name, []).extend(here)
        return Plan(
            tuple(keep_units(context.analysis, dropped)), groups_left_alone(context, step.settings)
        )


def _able(layer: Layer, settings: ByLayer) -> bool:
    """True if the step could have taken the layer."""
    if isinstance(settings, LowRank):
        return not factorable(layer)
    dynamic = isinstance(settings, Quantize) and settings.scheme == "int8_dynamic"
    return quantizable(layer.node) and not (dynamic and layer.spatial_dims)


def _joined(plans: Sequence[tuple[set[str], Plan]], able: set[str]) -> Plan:
    """One plan of several, each with the names of its layers; of the `able` the rest is kept."""
    wanted = set[str]().union(*(names for names, _ in plans))
    left: dict[str, str] = {}
    for names, plan in plans:
        for row in plan.left_alone:
            if row.what in names or row.what not in wanted:
                left[row.what] = KEPT if row.what in able - wanted else row.reason
    first = plans[0][1]
    return replace(
        first,
        edits=tuple(e for _, plan in plans for e in plan.edits),
        weights={n: w for _, plan in plans for n, w in plan.weights.items()},
        left_alone=tuple(LeftAlone(what, reason) for what, reason in left.items()),
    )
