"""Drop whole units of channel groups: fixed ratios here, levels for the search in `Pruner`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import numpy as np
from numpy.typing import NDArray

from ..configs.settings import Prune, SkipOrRatio
from ..core.naming import outside
from ..core.records import LeftAlone
from ..graph.analysis.groups import Analysis, Group, is_kernel_axis, keep_units
from .methods.importance import Scores, scores_of
from .plan import Adjuster, Context, Plan

Dropped = dict[str, list[int]]


def plan(context: Context, settings: Prune) -> Plan:
    """Remove `ratio` of each group's units, the least important first."""
    context = seen_by(context, settings)
    pruner = Pruner.of(context, settings)
    dropped = pruner.at_ratio(float(settings.ratio or 0.0))
    left = groups_left_alone(context, settings)
    if pruner.instead:
        left = (LeftAlone("importance", pruner.instead), *left)
    return Plan(tuple(keep_units(context.analysis, dropped)), left)


def seen_by(context: Context, settings: Prune) -> Context:
    """The context with the groups that these settings allow to prune."""
    return replace(context, prune_normalized_dims=True) if settings.through_norms else context


def groups_left_alone(context: Context, settings: Prune) -> tuple[LeftAlone, ...]:
    """Every frozen or skipped group with its reason; kernel axes are not groups to a user."""
    left = [
        LeftAlone(g.name, g.frozen)
        for g in context.analysis.groups
        if g.frozen is not None and not is_kernel_axis(g) and g.size > 1
    ]
    for group in context.analysis.prunable:
        rule = rule_for(group, settings.match)
        if rule is not None and rule[1] == "skip":
            left.append(LeftAlone(group.name, f"`match` skips it (pattern `{rule[0]}`)"))
    for op, node in context.analysis.unknown_ops.items():
        left.append(LeftAlone(op, f"this operator has no rule yet (first seen at node `{node}`)"))
    return tuple(left)


def rule_for(group: Group, match: Mapping[str, SkipOrRatio]) -> tuple[str, SkipOrRatio] | None:
    """The first pattern that names a layer of the group wins."""
    layers = {outside(m.param.rpartition(".")[0]) for m in group.members if m.dim == 0}
    for pattern, value in match.items():
        if any(fnmatchcase(layer, pattern) for layer in layers):
            return pattern, value
    return None


@dataclass(frozen=True)
class Pruner:
    """Scores, costs and limits of every group, computed once; levels are cheap after that.

    `instead`: why scores are not by the criterion that was asked for, empty where they are.
    """

    analysis: Analysis
    scores: Scores
    costs: dict[str, float]
    settings: Prune
    multiple: int
    instead: str = ""

    @classmethod
    def of(
        cls,
        context: Context,
        settings: Prune,
        costs: Mapping[str, float] | None = None,
        multiple: int = 1,
    ) -> Pruner:
        """`costs`: MACs by layer name; without them every unit costs its parameters."""
        scores, instead = scores_of(context, settings.importance)
        unit_costs = {g.name: _unit_cost(g, costs) for g in context.analysis.prunable}
        chosen = settings.round_to or multiple
        return cls(context.analysis, scores, unit_costs, settings, chosen, instead)

    def at_ratio(self, ratio: float) -> Dropped:
        return {
            g.name: self._least(g, int(self._ratio(g, ratio) * g.size + 1e-9))
            for g in self.analysis.prunable
        }

    def at_level(self, level: float) -> Dropped:
        """Units to drop for a level in 0..1: the share of all droppable cost that goes.

        Units leave in order of importance per cost, over all groups; what remains of a group is
        rounded up to `multiple` units and never below its limits.
        """
        ranked = self._ranked()
        budget = level * sum(cost for _, _, cost in ranked)
        count = {g.name: 0 for g in self.analysis.prunable}
        for _, name, cost in ranked:
            if budget <= 0:
                break
            budget -= cost
            count[name] += 1
        groups = {g.name: g for g in self.analysis.prunable}
        return {n: self._least(groups[n], self._rounded(groups[n], c)) for n, c in count.items()}

    def _ranked(self) -> list[tuple[float, str, float]]:
        rows = []
        for group in self.analysis.prunable:
            order = np.sort(self.scores[group.name])
            cost = self.costs[group.name]
            for score in order[: self.limit(group)].tolist():
                rows.append((score / max(cost, 1.0), group.name, cost))
        return sorted(rows)

    def losses(self, group: Group) -> NDArray[np.float64]:
        """[size + 1]: predicted rise in loss when so many units go, the least important first."""
        return np.concatenate([[0.0], np.cumsum(np.sort(self.scores[group.name]))])

    def keeping(self, kept: Mapping[str, int]) -> dict[Group, list[int]]:
        """The units to drop so that each group keeps as many as `kept` says."""
        groups = {g.name: g for g in self.analysis.prunable}
        return {
            groups[n]: self._least(groups[n], groups[n].size - width) for n, width in kept.items()
        }

    def limit(self, group: Group) -> int:
        """The largest number of units that may go."""
        most = int(self._ratio(group, float(self.settings.max_ratio)) * group.size + 1e-9)
        return max(0, min(most, group.size - max(1, int(self.settings.min_units))))

    def _ratio(self, group: Group, given: float) -> float:
        rule = rule_for(group, self.settings.match)
        if rule is None:
            return given
        return 0.0 if rule[1] == "skip" else float(rule[1])

    def step(self, group: Group) -> int:
        """Units from one rewarded width to the next: at most a quarter of a small group."""
        features = max(len(m.indices[0]) for m in group.members)
        multiple = self.multiple
        if self.settings.round_to is None:
            multiple = max(1, multiple // features)
            while multiple > max(1, group.size // 4):
                multiple //= 2
        return multiple

    def _rounded(self, group: Group, drop: int) -> int:
        """Drops so many that what stays is a multiple."""
        multiple, kept = self.step(group), group.size - drop
        return group.size - min(group.size, -(-kept // multiple) * multiple)

    def _least(self, group: Group, count: int) -> list[int]:
        most = group.size - max(1, min(self.settings.min_units, group.size))
        order = np.argsort(self.scores[group.name], kind="stable")
        return sorted(order[: max(0, min(count, most))].tolist())


def _unit_cost(group: Group, costs: Mapping[str, float] | None) -> float:
    total = 0.0
    for member in group.members:
        layer = outside(member.param.rpartition(".")[0])
        if costs is None:
            total += sum(len(unit) for unit in member.indices) / group.size
        elif member.param.endswith("weight"):
            total += costs.get(layer, 0.0) / group.size
    return total


ADJUSTER = Adjuster("prune", "drop whole channels, neurons or groups, least important first", plan)
