"""The search space: channels, blocks and number formats, with their importance and latency."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from ..adjusters.methods.importance import Scores
from ..adjusters.plan import Context
from ..adjusters.prune import Pruner, seen_by
from ..configs.recipe import Recipe, Step
from ..configs.settings import DropBlocks, Prune
from .decision import Decision, StepDecision
from .droppable_blocks import DroppableBlocks
from .knapsack import Problem
from .lab import Lab
from .latency_tables import LatencyTables, Store
from .layer_options import LayerOptions, choice_of
from .number_formats import (
    FLOAT,
    integer_steps,
    low_rank_steps,
    name_of,
    open_steps,
)
from .problem import ProblemBuilder
from .trials import Picks
from .width_multiple import rewarded_multiple


@dataclass(frozen=True)
class SearchSpace:
    pruner: Pruner
    depth: DroppableBlocks
    problem: Problem
    layer_options: LayerOptions

    @property
    def groups(self) -> set[str]:
        """Of the problem's choices, those of widths."""
        return set(self.problem.choices) - {choice_of(node) for node in self.layer_options.of}

    def all_by(self, step: int) -> Problem:
        """Every layer that can runs by this step of the recipe."""
        return replace(self.problem, barred=self.layer_options.barred_outside(step))

    def problems(self, steps: tuple[int, ...]) -> list[Problem]:
        """Problems in which layers may run by `steps`.

        The unconstrained problem first, then the extremes (no layer, every layer by one step),
        because predictions can be wrong.
        """
        if not steps:
            return [self.all_by(FLOAT)]
        free = replace(self.problem, barred=self.layer_options.barred_outside(FLOAT, *steps))
        return [free, self.all_by(FLOAT), *map(self.all_by, steps)]

    def settled(self, picks: Picks) -> dict[str, int]:
        """Layers of blocks that are left out run as they are: other options mean nothing."""
        leads, lead_of = (d.inner[0] for d in self.depth.blocks), self.depth.lead_of_node
        gone = {a for a in leads if not self.problem.choices[a].options[picks[a]]}
        rows = {
            choice_of(n): len(w) - 1
            for n, w in self.layer_options.of.items()
            if lead_of.get(n) in gone
        }
        return {**picks, **rows}

    def decision(self, recipe: Recipe, picks: Picks, number_format: int) -> Decision:
        """The recipe's steps as an allocation has them, the whole model in `number_format`."""
        picks = self.settled(picks)
        widths = {g: self.problem.choices[g].options[i] for g, i in picks.items()
                  if g in self.groups}  # fmt: skip
        gone = tuple(d.block for d in self.depth.blocks if not widths[d.inner[0]])
        kept = {g: w for g, w in widths.items() if w}
        nodes: dict[tuple[int, int], set[str]] = {}
        for node, option in self.layer_options.taken(picks).items():
            nodes.setdefault((option.step, option.rank), set()).add(node)
        steps = recipe.adjust
        taken = [
            StepDecision(steps[s], frozenset(layer_names), r)
            for (s, r), layer_names in sorted(nodes.items())
        ]
        whole = [] if number_format == FLOAT else [StepDecision(steps[number_format])]
        return Decision(
            self.pruner.keeping(kept), gone, self.depth.reason,
            open=tuple(steps[place] for place in open_steps(recipe)),
            taken=(*taken, *whole),
        )  # fmt: skip

    def formats(
        self, recipe: Recipe, picks: Picks, number_format: int
    ) -> tuple[tuple[int, ...], str]:
        """The steps that an allocation takes besides widths, and in words."""
        taken = self.layer_options.taken(self.settled(picks))
        counts = Counter(option.step for option in taken.values())
        whole = [] if number_format == FLOAT else [number_format]
        names = [name_of(recipe, f) for f in whole]
        for step, count in sorted(counts.items()):
            most = sum(any(w.step == step for w in row) for row in self.layer_options.of.values())
            part = "" if count == most else f" in {count} of {most} layers"
            names.append(name_of(recipe, step) + part)
        return (*whole, *sorted(counts)), ", ".join(names) or name_of(recipe, FLOAT)

    @classmethod
    def of(cls, lab: Lab, step: Step) -> SearchSpace:
        """For the model as it stands when the recipe reaches the pruning step."""
        assert isinstance(step.settings, Prune)
        start = lab.start(step)
        context = seen_by(start, step.settings)
        lab.progress.stage("ranking channel groups")
        ranking = lab.remember("ranking", Ranking, lambda: Ranking.of(lab, context, step))
        if ranking.instead:
            lab.set_aside("importance", ranking.instead)
        pruner = Pruner(
            context.analysis, ranking.scores, ranking.costs, step.settings, ranking.multiple,
            ranking.instead,
        )  # fmt: skip
        layer_options = LayerOptions()
        if low_rank_steps(lab.recipe) or integer_steps(lab.recipe):
            layer_options = lab.remember(
                "ways", LayerOptions, lambda: LayerOptions.measured(lab, start)
            )
        lab.progress.stage("timing layers at other widths")
        problem = lab.remember(
            "widths", Problem, lambda: _timed(lab, start, pruner, ranking.depth, layer_options)
        )
        return cls(pruner, ranking.depth, problem, layer_options)


@dataclass(frozen=True)
class Ranking:
    """All that takes long to find out about importance."""

    scores: Scores
    costs: dict[str, float]
    multiple: int
    depth: DroppableBlocks
    instead: str = ""

    @classmethod
    def of(cls, lab: Lab, context: Context, step: Step) -> Ranking:
        assert isinstance(step.settings, Prune)
        pruner = Pruner.of(context, step.settings, multiple=rewarded_multiple(context.device))
        groups = [g for g in context.analysis.prunable if pruner.limit(g) > 0]
        depth = DroppableBlocks.of(context, groups, _open_drop(lab))
        if depth.blocks and (pruner.instead or step.settings.importance == "magnitude"):
            depth = DroppableBlocks(reason="weight norms can't compare blocks with channels")
        return cls(pruner.scores, pruner.costs, pruner.multiple, depth, pruner.instead)


def _open_drop(lab: Lab) -> DropBlocks | None:
    """The settings of a `drop_blocks` step that leaves it to the search how many go."""
    settings = (s.settings for s in lab.recipe.adjust if isinstance(s.settings, DropBlocks))
    return next((s for s in settings if s.is_open()), None)


def _timed(
    lab: Lab, start: Context, pruner: Pruner, depth: DroppableBlocks, layer_options: LayerOptions
) -> Problem:
    """The knapsack, from timings of layers at other widths."""
    tables = LatencyTables.of(lab.runtime, start.device, Store.of(lab.fingerprint, lab.runtime))
    builder = ProblemBuilder(start.module, start.inputs, pruner, tables, depth, layer_options)
    count = builder.measure(lambda n: lab.progress.advance(n), lab.in_time)
    lab.progress.note(f"made {count} timings of layers; the rest was known on this machine")
    return builder.problem()
