"""Closing the loop: solve, build, measure, correct, until the written artifact is on target."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..configs.recipe import Step
from ..core.records import Candidate, Latency, Record
from ..graph.capture import clone
from .allocation import Problem
from .bench import Bench
from .chosen import Chosen
from .goal import MARGIN, WINDOW, budget_ms, feasibility, used, wanted
from .ground import Ground
from .pipeline import Variant, build
from .results import verify_written
from .talk import expected

TRIALS = 8
OTHER_TRIALS = 2
SHORTLIST = 5
FAR = 10.0  # times the least predicted rise in loss
RECOVER_SECONDS = 15.0  # for all of a shortlist; a large model takes as long for one
ROUNDS = 4
NEAR = 1.05
SEARCH_SHARE = 0.5
Picks = Mapping[str, int]


@dataclass
class Trial:
    """One allocation that was built and measured.

    `predicted_ms` is the sum over the tables, `expected_ms` the same on the scale of what had been
    measured by then.
    """

    picks: Picks
    predicted_ms: float
    loss: float
    latency: Latency
    runtime: str
    expected_ms: float | None = None
    held: float | None = None
    distance: float | None = None


@dataclass
class Search:
    """Candidates of one pruning step, measured as they are asked for."""

    bench: Bench
    ground: Ground
    trials: list[Trial] = field(default_factory=list)

    @property
    def problem(self) -> Problem:
        return self.ground.problem

    @property
    def candidates(self) -> list[Candidate]:
        """All that was tried beyond lossless work."""
        return [
            replace(
                candidate(f"tried {number}", t.latency, t.held),
                predicted_ms=t.expected_ms,
                predicted_rise=t.loss,
            )
            for number, t in enumerate(self.trials[1:], start=1)
        ]

    @classmethod
    def of(cls, bench: Bench, step: Step, free: Latency) -> Search:
        """Scores on the model as it stands when the recipe reaches the pruning step.

        `free` is the latency of lossless work alone.
        """
        bench.talk.expect(expected(bench.recipe, opened=True, search=True))
        ground = Ground.of(bench, step)
        whole = ground.problem.whole()
        made = cls(bench, ground)
        made.trials.append(Trial(whole, made.problem.ms(whole), 0.0, free, bench.runtime))
        made._recall()
        return made

    def _recall(self) -> None:
        """Trials of an interrupted search; a later entry of the same one knows more."""
        while (trial := self.bench.journal.get("trial", Trial)) is not None:
            same = (i for i, t in enumerate(self.trials) if t.picks == trial.picks)
            at = next(same, len(self.trials))
            self.trials[at : at + 1] = [trial]

    def chosen(self, picks: Picks) -> Chosen:
        widths = {g: self.problem.choices[g].widths[i] for g, i in picks.items()}
        depth = self.ground.depth
        gone = tuple(d.block for d in depth.blocks if not widths[d.inner[0]])
        kept = {g: w for g, w in widths.items() if w}
        return Chosen(self.ground.pruner.keeping(kept), gone, depth.reason)

    def measure(self, picks: Picks) -> Trial:
        for trial in self.trials:
            if trial.picks == picks:
                return trial
        bench = self.bench
        variant = build(bench, self.chosen(picks))
        predicted = self.problem.ms(picks)
        expected = _interpolated(
            [(t.predicted_ms, t.latency.value_ms) for t in self.trials], predicted
        )
        latency, runtime = bench.latency_on_reference(variant.module)
        made = Trial(picks, predicted, self.problem.loss(picks), latency, runtime, expected)
        self.trials.append(made)
        bench.journal.put("trial", made)
        bench.talk.note(f"tried: {latency.value_ms:.3g} ms, {expected:.3g} predicted")
        return made

    def solve(self, budget_ms: float) -> Trial | None:
        """The best of those found whose measured upper bound is within the budget, ideally just so.

        Several allocations are made, built and measured; of those that fit, the one counts that
        is nearest to the original after compensation (without data: of least predicted loss).
        """
        if self.measure(self.problem.fastest()).latency.high_ms > budget_ms:
            return None
        for number, problem in enumerate((self.problem, *self.problem.others())):
            self._approach(problem, budget_ms, TRIALS if number == 0 else OTHER_TRIALS)
        return self._best(budget_ms)

    def _approach(self, problem: Problem, budget_ms: float, trials: int) -> None:
        """Measure solutions of `problem` until one is in the window below the budget."""
        for _ in range(trials):
            aim = 0.5 * (1 + WINDOW) * budget_ms
            asked = _interpolated([(t.latency.high_ms, t.predicted_ms) for t in self.trials], aim)
            found = problem.solve(asked)
            if found is None or any(t.picks == found.picks for t in self.trials):
                return
            took = self.measure(found.picks).latency.high_ms
            if WINDOW * budget_ms < took <= budget_ms or not self._in_time():
                return

    def distance(self, trial: Trial) -> float:
        """From the original on held-out training data, after what recovers quickly."""
        self._recover(trial)
        assert trial.distance is not None
        return trial.distance

    def held(self, trial: Trial) -> float:
        """The metric on held-out training data after what recovers quickly."""
        self._recover(trial)
        assert trial.held is not None
        return trial.held

    def _recover(self, trial: Trial) -> None:
        bench = self.bench
        assert bench.data is not None
        if trial.held is not None:
            return
        made = build(bench, self.chosen(trial.picks), recover=True).module
        trial.held = bench.data.held_score(made, bench.device)
        trial.distance = bench.data.held_divergence(bench.original, made, bench.device)
        bench.journal.put("trial", trial)
        bench.talk.note(f"{trial.latency.value_ms:.3g} ms: held-out {trial.held:.4f}")

    def within(self, least: float) -> list[Trial]:
        """Trials whose held-out metric is at least that, the fastest first, by halving the range.

        Latencies are halved on their logarithm between the narrowest and the whole.
        """
        self.bench.talk.stage("searching")
        smallest = self.measure(self.problem.fastest())
        self._say_feasible(smallest)
        if self.held(smallest) >= least:
            return [smallest]
        fast, slow = smallest.latency.value_ms, self.trials[0].latency.value_ms
        good: list[Trial] = []
        while slow > NEAR * fast and self._in_time():
            points = [(t.latency.value_ms, t.predicted_ms) for t in self.trials]
            found = self.problem.solve(_interpolated(points, math.sqrt(fast * slow)))
            if found is None or any(t.picks == found.picks for t in self.trials):
                break
            trial = self.measure(found.picks)
            if self.held(trial) >= least:
                good.append(trial)
                slow = min(slow, trial.latency.value_ms)
            else:
                fast = max(fast, trial.latency.value_ms)
        return sorted(good, key=lambda t: t.latency.value_ms)

    def _say_feasible(self, smallest: Trial) -> None:
        """Before the long work: where the target lies between what is known to be possible."""
        target, whole, note = self.bench.job.target, self.bench.reference, self.bench.talk.note
        note(feasibility(target, whole, self.trials[0].latency, smallest.latency))
        if wanted(target) and smallest.latency.value_ms > budget_ms(target, whole):
            note("the target is out of reach with this recipe: the closest it can get is made")

    def _best(self, budget_ms: float) -> Trial | None:
        """Of those that fit, and promise not much less than the best of them."""
        fitting = [t for t in self.trials if t.latency.high_ms <= budget_ms]
        ranked = sorted(fitting, key=lambda t: t.loss)[:SHORTLIST]
        if self.bench.data is None or not ranked:
            return next(iter(ranked), None)
        begun = time.monotonic()
        near: list[tuple[float, float, Trial]] = []
        for trial in ranked:
            late = time.monotonic() - begun > RECOVER_SECONDS or not self._in_time()
            if trial.loss > FAR * ranked[0].loss or (near and late):
                break
            near.append((self.distance(trial), trial.loss, trial))
        return min(near, key=lambda row: row[:2])[2]

    def _in_time(self) -> bool:
        """The rest of the time belongs to training and the final check."""
        spent = time.monotonic() - self.bench.started
        return spent < SEARCH_SHARE * 60.0 * self.bench.recipe.limits.minutes

    def settle(self, record: Record, out: Path, recipe: str) -> tuple[Trial, float]:
        """The trial to train and the smallest latency seen (ms).

        It is the one of least loss whose artifact meets the target in a fresh process with a
        margin, the narrowest where none does. What that process measures corrects the budget.
        """
        bench, target = self.bench, self.bench.job.target
        bench.talk.stage("searching")
        smallest = self.measure(self.problem.fastest())
        budget = budget_ms(target, bench.reference)
        self._say_feasible(smallest)
        best: Trial | None = None
        for _ in range(ROUNDS):
            found = self.solve(budget)
            if found is None:
                break
            bench.runtime = found.runtime
            made = build(bench, self.chosen(found.picks))
            trial = Variant(clone(made.module), made.edits)
            checked = verify_written(bench, out, trial, record, recipe, 5.0)
            share = used(target, checked)
            bench.talk.note(f"a fresh process uses {100 * share:.1f} % of the target")
            if share <= MARGIN and (best is None or found.loss < best.loss):
                best = found
            if (share <= MARGIN and share >= WINDOW) or not self._in_time():
                break
            budget *= 0.5 * (WINDOW + MARGIN) / share
        best = best or smallest
        bench.runtime = best.runtime
        return best, min(t.latency.value_ms for t in self.trials)


def _interpolated(points: list[tuple[float, float]], at: float) -> float:
    """y at x, linear between the neighbours, on through the outer two beyond them."""
    rows = sorted(dict(points).items())
    if len(rows) == 1:
        return at * rows[0][1] / max(rows[0][0], 1e-9)
    above = next((i for i, (x, _) in enumerate(rows) if x >= at), len(rows) - 1)
    (x0, y0), (x1, y1) = rows[max(0, above - 1)], rows[max(1, above)]
    return y0 + (y1 - y0) * (at - x0) / (x1 - x0)


def candidate(
    label: str, latency: Latency, accuracy: float | None, chosen: bool = False
) -> Candidate:
    return Candidate(
        label, latency.value_ms, latency.low_ms, latency.high_ms, accuracy, chosen=chosen
    )
