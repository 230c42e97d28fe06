"""What a search starts from: importance of channels and blocks, and what each width takes."""

from __future__ import annotations

from dataclasses import dataclass

from torch.fx import GraphModule

from ..adjusters.importance import Scores
from ..adjusters.plan import Context
from ..adjusters.prune import Pruner, seen_by
from ..configs.recipe import Step
from ..configs.settings import DropBlocks, Prune
from .allocation import Problem
from .bench import Bench
from .building import before
from .costs import CostTables, Store
from .depth import Depth
from .multiples import rewarded_multiple
from .widths import Widths


@dataclass(frozen=True)
class Ground:
    pruner: Pruner
    depth: Depth
    problem: Problem

    @classmethod
    def of(cls, bench: Bench, step: Step) -> Ground:
        """For the model as it stands when the recipe reaches the pruning step."""
        module = before(bench, step).module
        context = seen_by(bench.context(module), step.settings)
        bench.talk.stage("ranking channel groups")
        ranking = bench.journal.kept("ranking", Ranking, lambda: Ranking.of(bench, context, step))
        pruner = Pruner(
            context.analysis, ranking.scores, ranking.costs, step.settings, ranking.multiple
        )
        bench.talk.stage("timing layers at other widths")
        problem = bench.journal.kept(
            "widths", Problem, lambda: _timed(bench, module, pruner, ranking.depth)
        )
        return cls(pruner, ranking.depth, problem)


@dataclass(frozen=True)
class Ranking:
    """All that takes long to find out about importance."""

    scores: Scores
    costs: dict[str, float]
    multiple: int
    depth: Depth

    @classmethod
    def of(cls, bench: Bench, context: Context, step: Step) -> Ranking:
        made = Pruner.of(context, step.settings, multiple=rewarded_multiple(bench.device))
        groups = [g for g in context.analysis.prunable if made.limit(g) > 0]
        depth = Depth.of(context, groups, _open_drop(bench))
        assert isinstance(step.settings, Prune)
        if depth.blocks and step.settings.importance == "magnitude":
            depth = Depth(reason="weight norms are no currency to weigh blocks in")
        return cls(made.scores, made.costs, made.multiple, depth)


def _open_drop(bench: Bench) -> DropBlocks | None:
    """The settings of a `drop_blocks` step that leaves it to the search how many go."""
    found = (s.settings for s in bench.recipe.adjust if isinstance(s.settings, DropBlocks))
    return next((s for s in found if s.count is None), None)


def _timed(bench: Bench, module: GraphModule, pruner: Pruner, depth: Depth) -> Problem:
    """The knapsack, from timings of layers at other widths."""
    tables = CostTables.of(bench.runtime, bench.device, Store.of(bench.fingerprint, bench.runtime))
    widths = Widths(module, bench.inputs, pruner, tables, depth)
    count = widths.measure(lambda n: bench.talk.advance(n))
    bench.talk.note(f"{count} timings of layers made, the rest known on this machine")
    return widths.problem()
