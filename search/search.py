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
from ..tuning.candidates import build
from ..tuning.failing import reason_of
from ..tuning.session import UNMEASURED, Bench
from ..tuning.stages import expected
from .decision import Chosen
from .knapsack import Problem
from .number_formats import FLOAT, halves, integers, takes_a_format
from .space import Ground
from .target import WINDOW, budget_ms, feasibility, wanted
from .trials import Picks, Trial, candidates, interpolated, shortlist
from .variant import Variant

TRIALS = 8
OTHER_TRIALS = 4
RECOVER_SECONDS = 15.0  # for the shortlist of a format; a large model takes as long for one
SEARCH_SHARE = 0.5


@dataclass
class Search:
    """Candidates of one pruning step, measured as they are asked for.

    `forms`: formats of the whole model that are faster here, FLOAT first; `steps`: of the recipe,
    those that make layers run in integers or split, where all of them together are faster.
    """

    bench: Bench
    ground: Ground
    trials: list[Trial] = field(default_factory=list)
    forms: tuple[int, ...] = (FLOAT,)
    steps: tuple[int, ...] = ()

    @property
    def problem(self) -> Problem:
        return self.ground.problem

    @property
    def candidates(self) -> list[Candidate]:
        """All that was tried beyond lossless work."""
        return candidates(self.trials[1:])

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
        if made.problem.choices:
            made.steps = tuple(
                s for s in ground.ways.steps if made._gains(ground.all_by(s).whole())
            )
            found = (f for f in halves(bench.recipe) if made._gains(whole, f))
            made.forms = (FLOAT, *found)
        return made

    def _recall(self) -> None:
        """Trials of an interrupted search; a later entry of the same one knows more."""
        while (trial := self.bench.journal.get("trial", Trial)) is not None:
            known = self.known(trial.picks, trial.form)
            at = len(self.trials) if known is None else self.trials.index(known)
            self.trials[at : at + 1] = [trial]

    def _gains(self, whole: Picks, form: int = FLOAT) -> bool:
        """Whether the model without pruning is faster in this format here."""
        trial = self.known(whole, form)
        try:
            if trial is None:
                variant = self._built(whole, form)
                if form != FLOAT and not takes_a_format(variant.edits):
                    return False
                trial = self._measured(whole, form, variant)
        except Exception as error:
            trial = self._unmade(whole, form, error)
        if trial.failed:
            return False
        gains = trial.latency.high_ms < self.trials[0].latency.value_ms
        self.bench.talk.note(
            f"{trial.name} without pruning: {trial.latency.value_ms:.3g} ms"
            + ("" if gains else ", no faster than float32 here")
        )
        return gains

    def problems(self, form: int) -> list[Problem]:
        """In half precision no layer runs in integers, but it may be split."""
        integer = integers(self.bench.recipe) if form != FLOAT else ()
        return self.ground.problems(tuple(s for s in self.steps if s not in integer))

    def chosen(self, trial: Trial) -> Chosen:
        return self.ground.chosen(self.bench.recipe, trial.picks, trial.form)

    def known(self, picks: Picks, form: int) -> Trial | None:
        wanted, settled = self.ground.settled(picks), self.ground.settled
        same = (t for t in self.trials if t.form == form and settled(t.picks) == wanted)
        return next(same, None)

    def measure(self, picks: Picks, form: int = FLOAT) -> Trial:
        """One that fails is no better than nothing, and the search goes on."""
        known = self.known(picks, form)
        if known is not None:
            return known
        try:
            return self._measured(picks, form, self._built(picks, form))
        except Exception as error:
            return self._unmade(picks, form, error)

    def _unmade(self, picks: Picks, form: int, error: Exception) -> Trial:
        formats, name = self.ground.formats(self.bench.recipe, picks, form)
        made = Trial(
            picks, self.problem.ms(picks), self.problem.loss(self.ground.settled(picks)),
            UNMEASURED, self.bench.runtime, form=form, formats=formats, name=name,
        )  # fmt: skip
        self.trials.append(made)
        self.fail(made, error)
        return made

    def fail(self, trial: Trial, error: Exception) -> None:
        """The trial is none any more, and the report says why."""
        label = f"tried {self.trials.index(trial)}, {trial.name}"
        trial.fail(reason_of(error, label))
        self.bench.set_aside[label] = trial.failed
        self.bench.talk.note(f"{label}: {trial.failed}")

    def _built(self, picks: Picks, form: int) -> Variant:
        chosen = self.ground.chosen(self.bench.recipe, picks, form)
        return build(self.bench, replace(chosen, rough=True))

    def _measured(self, picks: Picks, form: int, variant: Variant) -> Trial:
        bench, predicted = self.bench, self.problem.ms(picks)
        formats, name = self.ground.formats(bench.recipe, picks, form)
        same = [t for t in self.trials if t.formats == formats and not t.failed]
        # One point of another format says little: small layers gain less by it than large ones.
        told = len(same) >= (2 if formats else 1)
        points = [(t.predicted_ms, t.latency.value_ms) for t in same]
        expected = interpolated(points, predicted) if told else None
        packs = takes_a_format(variant.edits)
        names = (bench.runtime_for(variant.module),) if packs else None
        latency, runtime = bench.latency_on_reference(variant.module, names)
        loss = self.problem.loss(self.ground.settled(picks))
        made = Trial(
            picks, predicted, loss, latency, runtime, expected,
            form=form, formats=formats, name=name,
        )  # fmt: skip
        self.trials.append(made)
        bench.journal.put("trial", made)
        if expected is not None:
            bench.talk.note(f"tried: {latency.value_ms:.3g} ms, {expected:.3g} predicted")
        return made

    def of_problem(self, form: int, problem: Problem) -> list[Trial]:
        """What was tried in a format and is among the problem's options."""
        made = (t for t in self.trials if t.form == form and not t.failed)
        return [t for t in made if problem.allows(t.picks)]

    def smallest(self) -> Trial:
        """What takes least time of all; lossless work where nothing else can be had."""
        made = [
            self.measure(problem.fastest(), form)
            for form in self.forms
            for problem in self.problems(form)
        ]
        found = [t for t in made if not t.failed] or [t for t in self.trials if not t.failed]
        return min(found, key=lambda t: t.latency.value_ms)

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
        for form in self.forms:
            free, *others = self.problems(form)
            for problem in (free, *free.others(), *others):
                if self._between(problem, budget_ms, form):
                    trials = TRIALS if problem is free else OTHER_TRIALS
                    self._approach(problem, budget_ms, trials, form)
        return self._best(budget_ms)

    def _between(self, problem: Problem, budget_ms: float, form: int) -> bool:
        """Whether there is something to choose: its narrowest is fast enough, its whole is not."""
        fastest = self.measure(problem.fastest(), form)
        # Where the narrowest fails, wider ones may be had.
        fits = bool(fastest.failed) or fastest.latency.high_ms <= budget_ms
        return fits and self.measure(problem.whole(), form).latency.high_ms > budget_ms

    def exact(self, budget_ms: float) -> Trial | None:
        """The whole model in half precision where that is enough: nothing need be removed.

        With data it must keep to `limits.max_drop` on what is held out of training.
        """
        for form in self.forms[1:]:
            trial = self.measure(self.problem.whole(), form)
            if trial.latency.high_ms <= budget_ms and self._keeps_to_limit(trial):
                return trial
        return None

    def _keeps_to_limit(self, trial: Trial) -> bool:
        if self.bench.data is None:
            return True
        return self.start - self.held(trial) <= self.bench.recipe.limits.max_drop

    @cached_property
    def start(self) -> float:
        """The original's metric on held-out training data."""
        assert self.bench.data is not None
        return self.bench.data.held_out_score(self.bench.original, self.bench.device)

    def _approach(self, problem: Problem, budget_ms: float, trials: int, form: int) -> None:
        """Measure solutions of `problem` until one is in the window below the budget.

        Predictions err otherwise for blocks than for widths, so what this problem's own solutions
        took says best what to ask of it next.
        """
        aim, whole = 0.5 * (1 + WINDOW) * budget_ms, self.measure(problem.whole(), form)
        points, tried = self.of_problem(form, problem), [whole]
        count = len(tried)  # with those that failed
        low, high = 0.0, whole.predicted_ms  # asking for the one fitted, for the other did not
        for _ in range(2 * trials):
            rows = [(t.latency.high_ms, t.predicted_ms) for t in points if not t.failed]
            asked = interpolated(rows, aim) if rows else low
            asked = asked if low < asked < high else 0.5 * (low + high)
            found = problem.solve(asked)
            if found is None:  # nothing is predicted to be so fast
                low = asked
                continue
            trial = self.measure(found.picks, form)
            took = trial.latency.high_ms
            if trial.failed:  # nothing is known of it: wider ones are asked for
                count, low = count + 1, asked
                if count > trials or not self.in_time():
                    return
                continue
            if not any(t is trial for t in tried):
                points, count = (tried := [*tried, trial]), count + 1
            if WINDOW * budget_ms < took <= budget_ms or count > trials or not self.in_time():
                return
            low, high = (asked, high) if took <= budget_ms else (low, asked)

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
        try:
            made = build(bench, self.chosen(trial), recover=True).module
            trial.distance = bench.data.held_out_divergence(bench.original, made, bench.device)
            trial.held = bench.data.held_out_score(made, bench.device)
        except Exception as error:
            self.fail(trial, error)
            return
        bench.journal.put("trial", trial)
        bench.talk.note(f"{trial.latency.value_ms:.3g} ms, {trial.name}: held-out {trial.held:.4f}")

    def say_feasible(self, smallest: Trial) -> None:
        """Before the long work: where the target lies between what is known to be possible."""
        target, whole, note = self.bench.job.target, self.bench.reference, self.bench.talk.note
        note(feasibility(target, whole, self.trials[0].latency, smallest.latency))
        if wanted(target) and smallest.latency.value_ms > budget_ms(target, whole):
            note("the target is out of reach with this recipe: the closest it can get is made")

    def _best(self, budget_ms: float) -> Trial | None:
        """Of those that fit, and promise not much less than the best of them."""
        ranked = shortlist(t for t in self.trials if t.latency.high_ms <= budget_ms)
        if self.bench.data is None or not ranked:
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
        """The rest of the time belongs to training and the final check."""
        spent = working() - self.bench.started
        return spent < SEARCH_SHARE * 60.0 * self.bench.recipe.limits.minutes
