"""The search's knapsack: all options with their predicted times and losses."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from torch.fx import GraphModule

from ..adjusters.prune import Pruner
from ..backends.registry import runtime_node_times
from ..core.model_io import Inputs
from ..graph.analysis.groups import Group
from ..graph.lowering.lower import folded_copy
from .droppable_blocks import DroppableBlocks
from .knapsack import Choice, Floats, Problem, Term
from .latency_tables import LatencyTables, Shape, points_for, shapes_of
from .layer_options import LayerOptions, choice_of

OPTIONS = 12
CORNER = 0.99  # a width is not an option if a wider one takes hardly longer
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


class ProblemBuilder:
    """Options of each group, and the problem they make."""

    def __init__(
        self,
        module: GraphModule,
        inputs: Inputs,
        pruner: Pruner,
        tables: LatencyTables,
        depth: DroppableBlocks | None = None,
        layer_options: LayerOptions | None = None,
    ) -> None:
        self.pruner, self.tables, self.depth = pruner, tables, depth or DroppableBlocks()
        self.layer_options = (layer_options or LayerOptions()).of
        self.groups = {g.name: g for g in pruner.analysis.prunable if pruner.limit(g) > 0}
        self.whole = {name: g.size for name, g in self.groups.items()}
        self.options = {name: options(g, pruner) for name, g in self.groups.items()}
        shapes = shapes_of(folded_copy(module), inputs)
        self.cells = {name: self._cell(shape) for name, shape in shapes.items()}
        times = runtime_node_times(module, inputs, tables.runtime)
        self._others = self._times_of_others(times, set(shapes))

    def measure(
        self, advance: Callable[[int], None], fits: Callable[[float], bool] = lambda _: True
    ) -> int:
        """Time what the tables lack; how many points that were. `fits` as in `LatencyTables`."""
        wanted = []
        for cell in self.cells.values():
            if not cell.shape.tabled:
                continue
            pairs = [pair for row in self._requests(cell) for pair in row]
            pairs.append(cell.shape.widths)
            ins, outs = zip(*pairs, strict=True)
            wanted.append((cell.shape, points_for(cell.shape, ins, outs)))
        return self.tables.measure(wanted, advance, fits)

    def problem(self) -> Problem:
        """The knapsack: corner widths, width 0 for blocks that can be left out, layer options."""
        terms, fixed = self._terms()
        kept = {name: self._corners(name, terms) for name in self.groups}
        kept |= {
            choice_of(node): list(range(len(options)))
            for node, options in self.layer_options.items()
        }
        leads = self.depth.lead_of_group
        dropping = {d.inner[0]: d.loss for d in self.depth.blocks}
        choices = {}
        for name, group in self.groups.items():
            losses = self.pruner.losses(group)
            widths = tuple(self.options[name][i] for i in kept[name])
            rises = tuple(float(losses[group.size - w]) for w in widths)
            if name in leads:
                widths, rises = (0, *widths), (dropping.get(name, 0.0), *rises)
            choices[name] = Choice(widths, rises)
        for node, options in self.layer_options.items():
            rises = tuple(option.loss for option in options)
            choices[choice_of(node)] = Choice(tuple(range(len(options))), rises)
        cut = [Term(t.names, t.ms[np.ix_(*(kept[n] for n in t.names))]) for t in terms]
        inner = tuple(d.inner for d in self.depth.blocks)
        return _with_blocks(Problem(choices, cut, fixed, inner, self.depth.most), leads)

    def _terms(self) -> tuple[list[Term], float]:
        """Times by the choices that they depend on, and what depends on none."""
        terms: list[Term] = []
        for node, cell in self.cells.items():
            if not cell.shape.tabled:
                continue
            rows = self._requests(cell)
            times = [np.array([self.tables.at(cell.shape, *pair) for pair in row]) for row in rows]
            whole = self.tables.at(cell.shape, *cell.shape.widths)
            if cell.exact and rows:
                shape = tuple(len(self.options[g]) for g in cell.groups)
                shares = self._shares(node, cell.shape, rows[0]).reshape(*shape, -1)
                terms.append(self._term(node, cell.groups, times[0].reshape(shape), shares))
            else:
                terms.append(self._term(node, (), np.array(whole)))
                terms += [
                    self._term(node, (g,), row - whole)
                    for g, row in zip(cell.groups, times, strict=True)
                ]
        for node, (ms, names) in self._others.items():
            terms.append(self._term(node, (), np.array(ms * (1 - LOST) if names else ms)))
            for name in names:
                share = np.array(self.options[name]) / self.whole[name]
                terms.append(self._term(node, (name,), LOST * ms / len(names) * share))
        joined = _joined(terms)
        return [t for t in joined if t.names], sum(float(t.ms) for t in joined if not t.names)

    def _term(
        self, node: str, groups: tuple[str, ...], ms: Floats, shares: Floats | None = None
    ) -> Term:
        """Also by how the layer runs (`shares`: of the time, last axis); in a block that none of
        `groups` tells of, by its lead."""
        names = groups
        if node in self.layer_options:
            whole = np.array([option.share for option in self.layer_options[node]])
            names = (*names, choice_of(node))
            ms = ms[..., None] * (whole if shares is None else shares)
        lead = self.depth.lead_of_node.get(node)
        leads = self.depth.lead_of_group
        if lead is not None and not any(leads.get(g) == lead for g in groups):
            names, ms = (*names, lead), np.repeat(ms[..., None], len(self.options[lead]), -1)
        return Term(names, ms)

    def _shares(self, node: str, shape: Shape, pairs: Iterable[tuple[int, int]]) -> Floats:
        """[pair of widths, option]"""
        kernel, options = math.prod(shape.kernel), self.layer_options.get(node, ())
        return np.array(
            [[option.at(kernel, shape.widths, *pair) for option in options] for pair in pairs]
        )

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

    def _corners(self, name: str, terms: list[Term]) -> list[int]:
        """Options of a group that are faster than all wider ones, other groups whole."""
        times = np.zeros(len(self.options[name]))
        for term in terms:
            if name in term.names:
                at = tuple(slice(None) if n == name else -1 for n in term.names)
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
    ) -> dict[str, tuple[float, tuple[str, ...]]]:
        """ms of each node that is not a layer (or is a grouped one), and the groups it carries."""
        tabled = {n for n in layers if self.cells[n].shape.tabled}
        carriers, in_block = self.pruner.analysis.carriers, self.depth.lead_of_node
        return {
            node: (ms, tuple(g for g in carriers.get(node, ()) if g in self.groups))
            for node, ms in times.items()
            # Lowered layers have names of their own; plain ones keep theirs.
            if node not in tabled and (node in carriers or node in in_block)
        }


def _joined(terms: Iterable[Term]) -> list[Term]:
    """Terms of the same choices in one: the solver sees fewer tuples."""
    ms_of: dict[tuple[str, ...], Floats] = {}
    for term in terms:
        known = ms_of.get(term.names)
        ms_of[term.names] = term.ms if known is None else known + term.ms
    return [Term(names, ms) for names, ms in ms_of.items()]


def _with_blocks(problem: Problem, leads: Mapping[str, str]) -> Problem:
    """Every term takes no time at width 0 of a group."""
    terms = [
        Term(t.names, np.pad(t.ms, [(int(n in leads), 0) for n in t.names])) for t in problem.terms
    ]
    return replace(problem, terms=terms)


def options(group: Group, pruner: Pruner) -> tuple[int, ...]:
    """Widths worth asking for, rising: multiples of what this machine rewards, at most 12."""
    least = group.size - pruner.limit(group)
    step = pruner.step(group)
    steps = range(-(-least // step), group.size // step + 1)
    every = [step * i for i in steps if step * i < group.size]
    if len(every) > OPTIONS - 1:
        indexes = np.linspace(0, len(every) - 1, OPTIONS - 1).round().astype(int)
        every = [every[i] for i in dict.fromkeys(indexes.tolist())]
    return (*every, group.size)
