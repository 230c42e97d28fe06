"""The widths that pruning may choose from, with their predicted times and losses: the knapsack."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from torch.fx import GraphModule

from ..adjusters.prune import Pruner
from ..core.calling import Inputs
from ..graph.groups import Group
from ..graph.lowering import folded_copy
from ..profiling.layers import node_times
from .allocation import Choice, Problem, Term
from .costs import CostTables, Shape, points_for, shapes_of
from .runtimes import lowered

OPTIONS = 12
CORNER = 0.99  # a width is no option where a wider one takes hardly longer
LOST = 0.9  # of an operator's time follows its width; the rest is what any call costs


@dataclass(frozen=True)
class Axis:
    """One axis of a layer: its size now, and features per unit of each group that owns a part."""

    size: int
    owners: Mapping[str, int]

    def at(self, widths: Mapping[str, int], whole: Mapping[str, int]) -> int:
        return self.size - sum(
            (whole[g] - widths.get(g, whole[g])) * per for g, per in self.owners.items()
        )


@dataclass(frozen=True)
class Cell:
    """A layer between its two axes. `exact`: its time is known for all pairs of widths."""

    shape: Shape
    ins: Axis
    outs: Axis

    @property
    def groups(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys([*self.ins.owners, *self.outs.owners]))

    @property
    def exact(self) -> bool:
        apart = len(self.ins.owners) <= 1 and len(self.outs.owners) <= 1
        return apart and len(self.groups) <= 2


class Widths:
    """Options of each group, and the problem they make."""

    def __init__(
        self, module: GraphModule, inputs: Inputs, pruner: Pruner, tables: CostTables
    ) -> None:
        self.pruner, self.tables = pruner, tables
        self.groups = {g.name: g for g in pruner.analysis.prunable if pruner.limit(g) > 0}
        self.whole = {name: g.size for name, g in self.groups.items()}
        self.options = {name: options(g, pruner) for name, g in self.groups.items()}
        shapes = shapes_of(folded_copy(module), inputs)
        self.cells = {name: self._cell(shape) for name, shape in shapes.items()}
        ready = lowered(module, inputs, tables.runtime)
        self._others = self._times_of_others(node_times(ready, inputs), set(shapes))

    def measure(self, advance: Callable[[int], None]) -> int:
        """Time what the tables lack; how many points that were."""
        wanted = []
        for cell in self.cells.values():
            if cell.shape.layer.groups > 1 and not cell.shape.depthwise:
                continue
            pairs = [pair for row in self._requests(cell) for pair in row]
            pairs.append(cell.shape.widths)
            ins, outs = zip(*pairs, strict=True)
            wanted.append((cell.shape, points_for(cell.shape, ins, outs)))
        return self.tables.measure(wanted, advance)

    def problem(self) -> Problem:
        """The knapsack over corner widths."""
        terms = self._terms()
        kept = {name: self._corners(name, terms) for name in self.groups}
        choices = {}
        for name, group in self.groups.items():
            losses = self.pruner.losses(group)
            widths = tuple(self.options[name][i] for i in kept[name])
            rises = tuple(float(losses[group.size - w]) for w in widths)
            choices[name] = Choice(widths, rises)
        cut = [Term(t.groups, t.ms[np.ix_(*(kept[g] for g in t.groups))]) for t in terms[0]]
        return Problem(choices, cut, terms[1])

    def _terms(self) -> tuple[list[Term], float]:
        terms: list[Term] = []
        fixed = 0.0
        for cell in self.cells.values():
            if cell.shape.layer.groups > 1 and not cell.shape.depthwise:
                continue
            rows = self._requests(cell)
            times = [np.array([self.tables.at(cell.shape, *pair) for pair in row]) for row in rows]
            if not rows:
                fixed += self.tables.at(cell.shape, *cell.shape.widths)
            elif cell.exact:
                shape = tuple(len(self.options[g]) for g in cell.groups)
                terms.append(Term(cell.groups, times[0].reshape(shape)))
            else:
                whole = self.tables.at(cell.shape, *cell.shape.widths)
                fixed += whole
                terms += [
                    Term((g,), row - whole) for g, row in zip(cell.groups, times, strict=True)
                ]
        for names, ms in self._others.items():
            fixed += ms * (1 - LOST) if names else ms
            for name in names:
                share = np.array(self.options[name]) / self.whole[name]
                terms.append(Term((name,), LOST * ms / len(names) * share))
        return terms, fixed

    def _requests(self, cell: Cell) -> list[list[tuple[int, int]]]:
        """Widths to look up: one row over all choices where exact, else one row per group."""
        names = cell.groups
        if not names:
            return []
        if cell.exact:
            grid = np.ndindex(*(len(self.options[g]) for g in names))
            picks = [{g: self.options[g][i] for g, i in zip(names, at, strict=True)} for at in grid]
            return [[self._at(cell, p) for p in picks]]
        return [[self._at(cell, {g: w}) for w in self.options[g]] for g in names]

    def _at(self, cell: Cell, widths: Mapping[str, int]) -> tuple[int, int]:
        outs = cell.outs.at(widths, self.whole)
        return (outs if cell.shape.depthwise else cell.ins.at(widths, self.whole)), outs

    def _corners(self, name: str, terms: tuple[list[Term], float]) -> list[int]:
        """Options of a group that are faster than all wider ones, other groups whole."""
        times = np.zeros(len(self.options[name]))
        for term in terms[0]:
            if name in term.groups:
                at = tuple(slice(None) if g == name else -1 for g in term.groups)
                times += term.ms[at]
        kept = [len(times) - 1]
        for index in range(len(times) - 2, -1, -1):
            if times[index] < CORNER * times[kept[-1]]:
                kept.append(index)
        return kept[::-1]

    def _cell(self, shape: Shape) -> Cell:
        ins, outs = (self._axis(shape.layer.weight, d, shape.widths[1 - d]) for d in (1, 0))
        return Cell(shape, Axis(shape.widths[0], {}) if shape.depthwise else ins, outs)

    def _axis(self, weight: str, dim: int, size: int) -> Axis:
        owners = {}
        for name, group in self.groups.items():
            for member in group.members:
                if (member.param, member.dim) == (weight, dim):
                    owners[name] = len(member.indices[0])
        return Axis(size, owners)

    def _times_of_others(
        self, times: Mapping[str, float], layers: set[str]
    ) -> dict[tuple[str, ...], float]:
        """ms of what is no layer (or a grouped one), by the groups that it carries."""
        tabled = {
            n for n in layers
            if self.cells[n].shape.layer.groups == 1 or self.cells[n].shape.depthwise
        }  # fmt: skip
        found: dict[tuple[str, ...], float] = defaultdict(float)
        carriers = self.pruner.analysis.carriers
        for node, ms in times.items():
            # Lowered layers have names of their own; plain ones keep theirs.
            if node not in tabled and node in carriers:
                found[tuple(g for g in carriers[node] if g in self.groups)] += ms
        return dict(found)


def options(group: Group, pruner: Pruner) -> tuple[int, ...]:
    """Widths worth asking for, rising: multiples of what this machine rewards, at most 12."""
    least = group.size - pruner.limit(group)
    step = pruner.step(group)
    steps = range(-(-least // step), group.size // step + 1)
    every = [step * i for i in steps if step * i < group.size]
    if len(every) > OPTIONS - 1:
        places = np.linspace(0, len(every) - 1, OPTIONS - 1).round().astype(int)
        every = [every[i] for i in dict.fromkeys(places.tolist())]
    return (*every, group.size)
