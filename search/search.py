"""Closing the loop: solve, build, measure, correct, until a candidate is on target.

Widths, blocks and the layers that run in integers are the knapsack's. The whole in half precision
is searched beside it on the same tables: what it takes end to end is measured, which maps one to
the other.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

from ..configs.recipe import Step
from ..core.records import Candidate, Latency
from ..profiling.gate import working
from .approach import approach
from .decision import Decision
from .knapsack import Problem
from .lab import HeldOut, Lab
from .number_formats import FLOAT, half_precision_steps, integer_steps, takes_a_format
from .space import SearchSpace
from .target import budget_ms, feasibility, is_set
from .trials import Picks, Trial, candidates, interpolated, shortlist
from .variant import Variant

TRIALS = 8
OTHER_TRIALS = 4
RECOVER_SECONDS = 15.0  # for the shortlist of a format; a large model takes as long for one
OUT_OF_REACH = (
    "the target is out of reach with this recipe; building what comes nearest to it within "
    "the accuracy limit"
)
UNMEASURED = Latency(50.0, 1.0, 1.0, 1.0)


@dataclass
class Search:
    """Candidates of one pruning step, measured as they are asked for.

    `number_formats`: those of the whole model that are faster here, FLOAT first; `steps`: of the
    recipe, those that make layers run in integers or split, where all together are faster.
    `explored_ms`: the budget that it was done for.
    """

    lab: Lab
    space: SearchSpace
    trials: list[Trial] = field(default_factory=list)
    number_formats: tuple[int, ...] = (FLOAT,)
    steps: tuple[int, ...] = ()
    explored_ms: float | None = None

    @property
    def problem(self) -> Problem:
        return self.space.problem

    @property
    def budget_ms(self) -> float:
        """The target on the scale of the reference, by what is known of the machine by now."""
        return budget_ms(self.lab.target, self.lab.reference, self.lab.quiet_ms)

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """All trials but the first, which is lossless."""
        return tuple(candidates(self.trials[1:]))

    @classmethod
    def of(cls, lab: Lab, step: Step, free: Latency) -> Search:
        """Scores on the model as it stands when the recipe reaches the pruning step.

        `free` is the latency after lossless steps only.
        """
        space = SearchSpace.of(lab, step)
        whole = space.problem.whole()
        search = cls(lab, space)
        search.trials.append(Trial(whole, search.problem.ms(whole), 0.0, free, lab.runtime))
        search._recall()
        if search.problem.choices:
            search.steps = tuple(
                s for s in space.layer_options.steps if search._gains(space.all_by(s).whole())
            )
            faster = (f for f in half_precision_steps(lab.recipe) if search._gains(whole, f))
            search.number_formats = (FLOAT, *faster)
        return search

    def toward(self, lab: Lab) -> Search:
        """The same search for the target of another lab of the same job: what is known of the
        space and of trials is where it starts."""
        found = replace(self, lab=lab, trials=[], explored_ms=None)
        scale = self.budget_ms / found.budget_ms  # a share is of the target
        found.trials += [
            replace(t, share=None if t.share is None else t.share * scale) for t in self.trials
        ]
        found._recall()
        return found

    def _recall(self) -> None:
        """Trials of an interrupted search; a later entry of the same one knows more."""
        while (trial := self.lab.recall("trial", Trial)) is not None:
            known = self.known(trial.picks, trial.number_format)
            at = len(self.trials) if known is None else self.trials.index(known)
            self.trials[at : at + 1] = [trial]

    def _gains(self, whole: Picks, number_format: int = FLOAT) -> bool:
        """True if the model without pruning is faster in this format here."""
        trial = self.known(whole, number_format)
        try:
            if trial is None and self.trials[1:] and not self.in_time():
                return False
            if trial is None:
                variant = self._built(whole, number_format)
                if number_format != FLOAT and not takes_a_format(variant.edits):
                    return False
                trial = self._measured(whole, number_format, variant)
        except Exception as error:
            trial = self._unmade(whole, number_format, error)
        if trial.failed:
            return False
        gains = trial.latency.high_ms < self.trials[0].latency.value_ms
        self.lab.progress.note(
            f"{trial.name} without pruning: {trial.latency.value_ms:.3g} ms"
            + ("" if gains else ", no faster than float32 here")
        )
        return gains

    def problems(self, number_format: int) -> list[Problem]:
        """In half precision no layer runs in integers, but it may be split."""
        integer = integer_steps(self.lab.recipe) if number_format != FLOAT else ()
        return self.space.problems(tuple(s for s in self.steps if s not in integer))

    def decision(self, trial: Trial) -> Decision:
        return self.space.decision(self.lab.recipe, trial.picks, trial.number_format)

    def known(self, picks: Picks, number_format: int) -> Trial | None:
        wanted, settled = self.space.settled(picks), self.space.settled
        same = (
            t
            for t in self.trials
            if t.number_format == number_format and settled(t.picks) == wanted
        )
        return next(same, None)

    def measure(self, picks: Picks, number_format: int = FLOAT) -> Trial:
        """The trial for these picks, measured once; one that fails is marked, not raised."""
        known = self.known(picks, number_format)
        if known is not None:
            return known
        try:
            return self._measured(picks, number_format, self._built(picks, number_format))
        except Exception as error:
            return self._unmade(picks, number_format, error)

    def _unmade(self, picks: Picks, number_format: int, error: Exception) -> Trial:
        formats, name = self.space.formats(self.lab.recipe, picks, number_format)
        trial = Trial(
            picks, self.problem.ms(picks), self.problem.loss(self.space.settled(picks)),
            UNMEASURED, self.lab.runtime, number_format=number_format, formats=formats, name=name,
        )  # fmt: skip
        self.trials.append(trial)
        self.fail(trial, error)
        return trial

    def fail(self, trial: Trial, error: Exception) -> None:
        """Count the trial as failed; the report says why."""
        label = f"tried {self.trials.index(trial)}, {trial.name}"
        trial.fail(self.lab.set_aside(label, error))
        self.lab.progress.note(f"{label}: {trial.failed}")

    def _built(self, picks: Picks, number_format: int) -> Variant:
        decision = self.space.decision(self.lab.recipe, picks, number_format)
        return self.lab.build(replace(decision, rough=True))

    def _measured(self, picks: Picks, number_format: int, variant: Variant) -> Trial:
        lab, predicted = self.lab, self.problem.ms(picks)
        formats, name = self.space.formats(lab.recipe, picks, number_format)
        same = [t for t in self.trials if t.formats == formats and not t.failed]
        # One point of another format says little: small layers gain less by it than large ones.
        told = len(same) >= (2 if formats else 1)
        points = [(t.predicted_ms, t.latency.value_ms) for t in same]
        expected = interpolated(points, predicted) if told else None
        packs = takes_a_format(variant.edits)
        names = lab.runtimes_for(variant.module) if packs else ()
        latency, runtime = lab.latency(variant, names)
        loss = self.problem.loss(self.space.settled(picks))
        trial = Trial(
            picks, predicted, loss, latency, runtime, expected,
            number_format=number_format, formats=formats, name=name,
        )  # fmt: skip
        self.trials.append(trial)
        lab.write_down("trial", trial)
        if expected is not None:
            lab.progress.note(f"tried: {latency.value_ms:.3g} ms, {expected:.3g} predicted")
        return trial

    def of_problem(self, number_format: int, problem: Problem) -> list[Trial]:
        """Trials in a number format whose picks the problem allows."""
        built = (t for t in self.trials if t.number_format == number_format and not t.failed)
        return [t for t in built if problem.allows(t.picks)]

    def smallest(self) -> Trial:
        """The fastest trial of all; the lossless one if nothing else can be built."""
        fastest: list[Trial] = []
        for number_format in self.number_formats:
            for problem in self.problems(number_format):
                if self.known(problem.fastest(), number_format) or not fastest or self.in_time():
                    fastest.append(self.measure(problem.fastest(), number_format))
        usable = [t for t in (*fastest, *self.trials) if not t.failed] or self.trials[:1]
        return min(usable, key=lambda t: t.latency.value_ms)

    def solve(self, budget_ms: float) -> Trial | None:
        """The best of those found whose measured upper bound is within the budget, ideally just so.

        Several allocations are made, built and measured; of those that fit, the one counts that
        is nearest to the original after compensation (without data: of least predicted loss).
        """
        exact = self.exact(budget_ms)
        if exact is not None:
            return exact
        out_of_reach = self.smallest().latency.high_ms > budget_ms
        if out_of_reach and not any(t.failed for t in self.trials):
            return None
        for number_format in self.number_formats:
            free, *others = self.problems(number_format)
            for problem in (free, *free.variants(), *others):
                if problem is not free and not self.in_time():
                    break
                if self._between(problem, budget_ms, number_format):
                    trials = TRIALS if problem is free else OTHER_TRIALS
                    approach(self, problem, budget_ms, trials, number_format)
        return self._best(budget_ms)

    def _between(self, problem: Problem, budget_ms: float, number_format: int) -> bool:
        """True if there is something to choose: the narrowest is fast enough, the whole is not."""
        fastest = self.measure(problem.fastest(), number_format)
        # Where the narrowest fails, wider ones may be had.
        fits = bool(fastest.failed) or fastest.latency.high_ms <= budget_ms
        return fits and self.measure(problem.whole(), number_format).latency.high_ms > budget_ms

    def exact(self, budget_ms: float) -> Trial | None:
        """The whole model in half precision, if that is enough: then nothing is removed.

        With data it must keep to `limits.max_drop` on what decides.
        """
        for number_format in self.number_formats[1:]:
            trial = self.measure(self.problem.whole(), number_format)
            if trial.latency.high_ms <= budget_ms and self._keeps_to_limit(trial):
                return trial
        return None

    def _keeps_to_limit(self, trial: Trial) -> bool:
        if not self.lab.has_data:
            return True
        return self.start - self.held_out_score(trial) <= self.lab.recipe.limits.max_drop

    @cached_property
    def start(self) -> float:
        """The original's metric on the data that decides."""
        return self.lab.held_out(None).score

    def is_judged(self, trial: Trial) -> bool:
        """True if data has told what the trial costs; lossless work costs nothing."""
        known = trial is self.trials[0] or trial.held is not None
        return known or not self.lab.has_data

    def drop(self, trial: Trial) -> float:
        """Of the metric on the data that decides, after what recovers quickly."""
        return 0.0 if trial is self.trials[0] else self.start - self.held_out_score(trial)

    def distance(self, trial: Trial) -> float:
        """From the original on the data that decides, after what recovers quickly."""
        self._recover(trial)
        assert trial.distance is not None
        return trial.distance

    def held_out_score(self, trial: Trial) -> float:
        """The metric on the data that decides, after what recovers quickly."""
        self._recover(trial)
        assert trial.held is not None
        return trial.held

    def _recover(self, trial: Trial) -> None:
        if trial.held is not None:
            return
        lab = self.lab
        if trial is self.trials[0]:
            trial.distance, trial.held = 0.0, self.start
            return
        try:
            measured: HeldOut = lab.held_out(lab.build(self.decision(trial), recover=True))
        except Exception as error:
            self.fail(trial, error)
            return
        trial.distance, trial.held = measured.divergence, measured.score
        lab.write_down("trial", trial)
        lab.progress.note(
            f"{trial.latency.value_ms:.3g} ms, {trial.name}: held-out {trial.held:.4f}"
        )

    def say_feasible(self, smallest: Trial) -> None:
        """Before the long work: where the target lies between what is known to be possible."""
        lab, lossless = self.lab, self.trials[0].latency
        rows = (lossless, smallest.latency)
        lab.progress.note(feasibility(lab.target, lab.reference, lab.quiet_ms, *rows))
        if is_set(lab.target) and smallest.latency.value_ms > self.budget_ms:
            lab.progress.note(OUT_OF_REACH)

    def _best(self, budget_ms: float) -> Trial | None:
        """Of those that fit, and promise not much less than the best of them."""
        ranked = shortlist(t for t in self.trials if t.latency.high_ms <= budget_ms)
        if not self.lab.has_data or not ranked:
            return min(ranked, key=lambda t: t.loss, default=None)
        begun, firsts = working(), len({t.formats for t in ranked})
        near: list[tuple[float, float, Trial]] = []
        for trial in ranked:
            late = working() - begun > RECOVER_SECONDS * firsts or not self.in_time()
            if len(near) >= firsts and late:
                break
            distance = self.distance(trial)
            if not trial.failed:
                near.append((distance, trial.loss, trial))
        return min(near, key=lambda row: row[:2])[2] if near else None

    def in_time(self) -> bool:
        return self.lab.in_time()
