"""Closing the loop: solve, build, measure, correct, until a candidate is on target.

Widths and blocks are the knapsack's; every number format that is faster here is searched beside
float32, on the same tables: what it takes end to end is measured, which maps one to the other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

from ..configs.recipe import Step
from ..core.records import Candidate, Latency
from ..profiling.gate import working
from .allocation import Problem
from .bench import Bench
from .building import build
from .chosen import Chosen
from .forms import FLOAT, forms, is_exact, name_of, takes_a_format
from .goal import WINDOW, budget_ms, feasibility, wanted
from .ground import Ground
from .talk import expected
from .trials import Picks, Trial, candidates, interpolated, shortlist
from .variant import Variant

TRIALS = 8
OTHER_TRIALS = 4
RECOVER_SECONDS = 15.0  # for all of a shortlist; a large model takes as long for one
NEAR = 1.05
SEARCH_SHARE = 0.5


@dataclass
class Search:
    """Candidates of one pruning step, measured as they are asked for. `forms`: see forms.py."""

    bench: Bench
    ground: Ground
    trials: list[Trial] = field(default_factory=list)
    forms: tuple[int, ...] = (FLOAT,)

    @property
    def problem(self) -> Problem:
        return self.ground.problem

    @property
    def candidates(self) -> list[Candidate]:
        """All that was tried beyond lossless work."""
        return candidates(self.trials[1:], self.bench.recipe)

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
            made.forms = (FLOAT, *(f for f in forms(bench.recipe) if made._gains(f)))
        return made

    def _recall(self) -> None:
        """Trials of an interrupted search; a later entry of the same one knows more."""
        while (trial := self.bench.journal.get("trial", Trial)) is not None:
            same = (i for i, t in enumerate(self.trials) if t.same(trial.picks, trial.form))
            at = next(same, len(self.trials))
            self.trials[at : at + 1] = [trial]

    def _gains(self, form: int) -> bool:
        """Whether the whole model is faster in this format here."""
        whole, name = self.problem.whole(), name_of(self.bench.recipe, form)
        trial = self._known(whole, form)
        if trial is None:
            variant = build(self.bench, self.chosen(whole, form))
            if not takes_a_format(variant.edits):
                return False
            trial = self._measured(whole, form, variant)
        gains = trial.latency.high_ms < self.trials[0].latency.value_ms
        self.bench.talk.note(
            f"{name} without pruning: {trial.latency.value_ms:.3g} ms"
            + ("" if gains else ", no faster than float32 here")
        )
        return gains

    def chosen(self, picks: Picks, form: int = FLOAT) -> Chosen:
        widths = {g: self.problem.choices[g].widths[i] for g, i in picks.items()}
        depth = self.ground.depth
        gone = tuple(d.block for d in depth.blocks if not widths[d.inner[0]])
        kept = {g: w for g, w in widths.items() if w}
        steps = self.bench.recipe.adjust
        return Chosen(
            self.ground.pruner.keeping(kept), gone, depth.reason,
            formats=tuple(steps[f] for f in forms(self.bench.recipe)),
            taken=None if form == FLOAT else steps[form],
        )  # fmt: skip

    def _known(self, picks: Picks, form: int) -> Trial | None:
        return next((t for t in self.trials if t.same(picks, form)), None)

    def measure(self, picks: Picks, form: int = FLOAT) -> Trial:
        known = self._known(picks, form)
        if known is not None:
            return known
        return self._measured(picks, form, build(self.bench, self.chosen(picks, form)))

    def _measured(self, picks: Picks, form: int, variant: Variant) -> Trial:
        bench, predicted = self.bench, self.problem.ms(picks)
        points = [(t.predicted_ms, t.latency.value_ms) for t in self._in(form)]
        # One point of another format says little: small layers gain less by it than large ones.
        told = len(points) >= (1 if form == FLOAT else 2)
        expected = interpolated(points, predicted) if told else None
        names = None if form == FLOAT else (bench.runtime_for(variant.module),)
        latency, runtime = bench.latency_on_reference(variant.module, names)
        loss = self.problem.loss(picks)
        made = Trial(picks, predicted, loss, latency, runtime, expected, form=form)
        self.trials.append(made)
        bench.journal.put("trial", made)
        if expected is not None:
            bench.talk.note(f"tried: {latency.value_ms:.3g} ms, {expected:.3g} predicted")
        return made

    def _in(self, form: int) -> list[Trial]:
        return [t for t in self.trials if t.form == form]

    def smallest(self) -> Trial:
        """What takes least time of all."""
        narrow = self.problem.fastest()
        return min(
            (self.measure(narrow, form) for form in self.forms), key=lambda t: t.latency.value_ms
        )

    def solve(self, budget_ms: float) -> Trial | None:
        """The best of those found whose measured upper bound is within the budget, ideally just so.

        Several allocations are made, built and measured; of those that fit, the one counts that
        is nearest to the original after compensation (without data: of least predicted loss).
        """
        exact = self.exact(budget_ms)
        if exact is not None:
            return exact
        if self.smallest().latency.high_ms > budget_ms:
            return None
        narrow, whole = self.problem.fastest(), self.problem.whole()
        for form in self.forms:
            fits = self.measure(narrow, form).latency.high_ms <= budget_ms
            if not fits or self.measure(whole, form).latency.high_ms <= budget_ms:
                continue
            for number, problem in enumerate((self.problem, *self.problem.others())):
                trials = TRIALS if number == 0 else OTHER_TRIALS
                self._approach(problem, budget_ms, trials, form)
        return self._best(budget_ms)

    def exact(self, budget_ms: float) -> Trial | None:
        """The whole model in half precision where that is enough: nothing need be removed.

        With data it must keep to `limits.max_drop` on what is held out of training.
        """
        recipe, whole = self.bench.recipe, self.problem.whole()
        for form in self.forms:
            if form != FLOAT and is_exact(recipe, form):
                trial = self.measure(whole, form)
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
        return self.bench.data.held_score(self.bench.original, self.bench.device)

    def _approach(self, problem: Problem, budget_ms: float, trials: int, form: int) -> None:
        """Measure solutions of `problem` until one is in the window below the budget.

        Predictions err otherwise for blocks than for widths, so what this problem's own solutions
        took says best what to ask of it next.
        """
        aim, whole = 0.5 * (1 + WINDOW) * budget_ms, self._in(form)[0]
        points, tried = self._in(form), [whole]
        low, high = 0.0, whole.predicted_ms  # asking for the one fitted, for the other did not
        for _ in range(2 * trials):
            asked = interpolated([(t.latency.high_ms, t.predicted_ms) for t in points], aim)
            asked = asked if low < asked < high else 0.5 * (low + high)
            found = problem.solve(asked)
            if found is None:  # nothing is predicted to be so fast
                low = asked
                continue
            trial = self.measure(found.picks, form)
            took = trial.latency.high_ms
            if not any(t is trial for t in tried):
                points = tried = [*tried, trial]
            if WINDOW * budget_ms < took <= budget_ms or len(tried) > trials or not self.in_time():
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
        made = build(bench, self.chosen(trial.picks, trial.form), recover=True).module
        trial.held = bench.data.held_score(made, bench.device)
        trial.distance = bench.data.held_divergence(bench.original, made, bench.device)
        bench.journal.put("trial", trial)
        name = name_of(bench.recipe, trial.form)
        bench.talk.note(f"{trial.latency.value_ms:.3g} ms, {name}: held-out {trial.held:.4f}")

    def within(self, least: float) -> list[Trial]:
        """Trials whose held-out metric is at least that, the fastest first, by halving the range.

        Latencies are halved on their logarithm between the narrowest and the whole.
        """
        self.bench.talk.stage("searching")
        smallest = self.smallest()
        self.say_feasible(smallest)
        if self.held(smallest) >= least:
            return [smallest]
        good = [t for form in self.forms for t in self._halved(least, form)]
        return sorted(good, key=lambda t: t.latency.value_ms)

    def _halved(self, least: float, form: int) -> list[Trial]:
        fast = self.measure(self.problem.fastest(), form).latency.value_ms
        whole = self.measure(self.problem.whole(), form)
        good: list[Trial] = []
        if form != FLOAT:
            if self.held(whole) < least:
                return good
            good.append(whole)
        slow = whole.latency.value_ms
        while slow > NEAR * fast and self.in_time():
            aim = math.sqrt(fast * slow)
            points = [(t.latency.value_ms, t.predicted_ms) for t in self._in(form)]
            found = self.problem.solve(interpolated(points, aim))
            if found is None:
                break
            known = self._known(found.picks, form)
            trial = known or self.measure(found.picks, form)
            # What is known already tells no more than on which side of the aim to go on.
            ms = aim if known else trial.latency.value_ms
            if self.held(trial) < least:
                fast = max(fast, ms)
                continue
            slow = min(slow, ms)
            if trial not in good:
                good.append(trial)
        return good

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
        begun, firsts = working(), len({t.form for t in ranked})
        near: list[tuple[float, float, Trial]] = []
        for trial in ranked:
            late = working() - begun > RECOVER_SECONDS or not self.in_time()
            if len(near) >= firsts and late:
                break
            near.append((self.distance(trial), trial.loss, trial))
        return min(near, key=lambda row: row[:2])[2]

    def in_time(self) -> bool:
        """The rest of the time belongs to training and the final check."""
        spent = working() - self.bench.started
        return spent < SEARCH_SHARE * 60.0 * self.bench.recipe.limits.minutes
