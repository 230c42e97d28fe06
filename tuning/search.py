"""Closing the loop: remove the least with which the written artifact meets its target."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from torch.fx import GraphModule

from ..adjusters.prune import Dropped, Pruner, seen_by
from ..configs.recipe import Step
from ..core.records import Candidate, Latency, Record
from ..graph.capture import clone
from ..profiling.layers import profile_layers
from .bench import Bench
from .finetuning import reestimate_batch_norm
from .goal import MARGIN, WINDOW, budget_ms, used
from .multiples import rewarded_multiple
from .pipeline import Variant, build
from .results import verify_written
from .solver import Bisection, Trial

ROUNDS = 4
BN_BATCHES = 10
SEARCH_SHARE = 0.5


@dataclass
class Search:
    """Candidates of one pruning step, measured as they are asked for."""

    bench: Bench
    pruner: Pruner
    free: Latency
    candidates: list[Candidate] = field(default_factory=list)
    runtimes: dict[float, str] = field(default_factory=dict)

    @classmethod
    def of(cls, bench: Bench, step: Step, free: Latency) -> Search:
        """Scores on the model as it stands when the recipe reaches the pruning step.

        `free` is the latency of lossless work alone, which is level 0.
        """
        bench.talk.stage("ranking channel groups")
        costs = {
            c.name: float(c.macs) for c in profile_layers(bench.original, bench.inputs, repeats=2)
        }
        multiple = rewarded_multiple(bench.device)
        context = seen_by(bench.context(bench.original), step.settings)
        pruner = Pruner.of(context, step.settings, costs, multiple)
        return cls(bench, pruner, free, runtimes={0.0: bench.runtime})

    def dropped(self, level: float) -> Callable[[GraphModule], Dropped]:
        return lambda module: self.pruner.at_level(level)

    def measure(self, level: float) -> Latency:
        bench = self.bench
        bench.talk.note(f"trying level {level:.2f}")
        variant = build(bench, self.dropped(level), recover=self._recover)
        latency, self.runtimes[level] = bench.latency_on_reference(variant.module)
        accuracy = bench.accuracy(variant.module)
        self.candidates.append(candidate(f"level {level:.3f}", latency, accuracy, level))
        return latency

    def _recover(self, module: GraphModule) -> None:
        data = self.bench.data
        if data is not None:
            reestimate_batch_norm(module, data.train, BN_BATCHES, self.bench.device)

    def _in_time(self) -> bool:
        """The rest of the time belongs to training and the final check."""
        spent = time.monotonic() - self.bench.started
        return spent < SEARCH_SHARE * 60.0 * self.bench.recipe.limits.minutes

    def settle(self, record: Record, out: Path, recipe: str) -> tuple[float, float]:
        """The level to train and the smallest latency seen (ms).

        The level is the lowest found whose artifact meets the target in a fresh process with a
        margin; 1 where none does. What the fresh process measures corrects the search's budget.
        """
        target, solver = (
            self.bench.job.target,
            Bisection(self.measure, [Trial(0.0, self.free)], self._in_time),
        )
        self.bench.talk.stage("searching")
        budget = budget_ms(target, self.bench.reference)
        best = 1.0
        for _ in range(ROUNDS):
            if not self._in_time() and best < 1.0:
                break
            found = solver.solve(budget)
            if found is None:
                break
            self.bench.runtime = self.runtimes[found.level]
            trial = build(self.bench, self.dropped(found.level))
            checked = verify_written(
                self.bench, out, Variant(clone(trial.module), trial.edits), record, recipe, 5.0
            )
            share = used(target, checked)
            if share <= MARGIN:
                best = min(best, found.level)
                # A machine in a slower state flatters: it may say "do more", never "do less".
                slow = any(n.code == "disturbed" for n in checked.final.notices)
                if share >= WINDOW or found.level == 0.0 or slow:
                    break
            corrected = found.latency.high_ms * 0.5 * (WINDOW + MARGIN) / share
            if solver.known(corrected) == found.level:
                break
            budget = corrected
        self.bench.runtime = self.runtimes[best]
        return best, min(t.latency.value_ms for t in solver.trials)


def candidate(
    label: str, latency: Latency, accuracy: float | None, level: float | None, chosen: bool = False
) -> Candidate:
    return Candidate(
        label, latency.value_ms, latency.low_ms, latency.high_ms, accuracy, level, chosen
    )
