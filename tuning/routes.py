"""The ways to a target: lossless steps only, a search, the fastest in a limit, the whole recipe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from ..configs.recipe import Step
from ..core.records import Candidate, Latency, Record, Verification
from ..search.meet_target import meet_target
from ..search.number_formats import half_precision_steps, integer_steps
from ..search.search import Search
from ..search.target import feasibility, is_set, share_of_target, summary
from ..search.trials import Trial, candidate
from ..search.variant import Variant
from ..search.within_limit import fastest_within
from .delivery import Outcome, final_record, ship
from .exclusions import reason_of
from .lab import SessionLab
from .session import Session
from .stages import expected
from .steps import StepRunner

ATTEMPTS = 3
T = TypeVar("T")


@dataclass(frozen=True)
class Lossless:
    """The latency that lossless steps reach, and the first rows of candidates."""

    latency: Latency
    runtime: str
    tried: tuple[Candidate, ...]


@dataclass(frozen=True)
class SearchResult:
    """The trial that the search settled on, and the least latency that it reached."""

    trial: Trial
    smallest_ms: float


@dataclass(frozen=True)
class FastestTrials:
    """Trials that the search predicts to be within the accuracy limit, the fastest first."""

    trials: list[Trial]


@dataclass(frozen=True)
class Routes:
    """Each route ends with an artifact at `out`, or goes over into another one."""

    session: Session
    record: Record
    lossless: Lossless
    out: Path
    force: bool

    @property
    def runtime(self) -> str:
        """The runtime of the model after lossless steps."""
        return self.session.trusted(self.lossless.runtime)

    @property
    def lab(self) -> SessionLab:
        return SessionLab(self.session, self.record, self.out, self.runtime)

    def lossless_only(self, step: Step | None) -> Outcome:
        """Only what costs no accuracy, unless the fresh process shows that it isn't enough."""
        session, target = self.session, self.session.job.target
        session.progress.note(feasibility(target, session.reference, self.lossless.latency))
        variant = StepRunner(session, None, lossless=True).all(self.runtime)

        def finish(variant: Variant, checked: Verification) -> Record | None:
            short = is_set(target) and share_of_target(target, checked) > 1.0
            if short and step is not None:
                return None
            rows = (*self.lossless.tried[:-1], _row("lossless", checked))
            record = final_record(session, self.record, variant, checked, rows)
            return replace(
                record,
                summary=self._lossless_summary(record, short),
                smallest_reachable_ms=checked.final.value_ms,
            )

        outcome = self._shipped(variant, finish)
        if outcome is None:
            assert step is not None
            return self.search(step)
        return outcome

    def _lossless_summary(self, record: Record, short: bool) -> str:
        target = self.session.job.target
        assert record.final is not None
        if short:
            text = summary(record, record.final.value_ms)
            nothing = "nothing in this recipe can trade accuracy for speed on this model"
            return f"{text}; {next(iter(self.session.exclusions.steps.values()), nothing)}"
        if target.ms is not None and record.baseline.high_ms <= target.ms:
            return "the original already meets the target: only the lossless steps were applied"
        if target.fastest:
            return "nothing faster than the lossless steps stays within the accuracy limit"
        if not is_set(target):
            return "no target was given: only the lossless steps were applied"
        return "the lossless steps are enough"

    def whole_recipe(self) -> Outcome:
        """A recipe with nothing to search for: every step is tried once, and kept if it helps."""
        variant = StepRunner(self.session, None).all(self.runtime)

        def finish(variant: Variant, checked: Verification) -> Record:
            record = self._final(variant, checked, ())
            assert record.speedup is not None
            smallest = checked.final.value_ms
            text = f"{record.speedup.speedup:.2f}x as fast with the whole recipe"
            if is_set(self.session.job.target):
                text = summary(record, smallest)
            return replace(record, smallest_reachable_ms=smallest, summary=text)

        return self._must_ship(variant, finish)

    def search(self, step: Step) -> Outcome:
        """The most accurate of what is fast enough: widths, blocks and number formats."""
        search = self._opened(step)
        choice = None if search is None else self._searched(
            step,
            lambda: self.session.journal.kept(
                "choice", SearchResult, lambda: SearchResult(*meet_target(search))
            ),
        )  # fmt: skip
        if search is None or choice is None:
            return self._unpruned()
        variant = self._run(search, choice.trial)

        def finish(variant: Variant, checked: Verification) -> Record:
            record = self._final(variant, checked, search.candidates)
            smallest = min(choice.smallest_ms, checked.final.value_ms)
            return replace(
                record, smallest_reachable_ms=smallest, summary=summary(record, smallest)
            )

        return self._must_ship(variant, finish)

    def fastest(self, step: Step) -> Outcome:
        """The dual problem: the least latency whose accuracy stays within `limits.max_drop`.

        The search judges by held-out training data; the evaluation data has the last word.
        """
        session, limit = self.session, self.session.recipe.limits.max_drop
        search = self._opened(step)
        if search is None:
            return self._unpruned()
        choices = self._searched(
            step,
            lambda: session.journal.kept(
                "choices",
                FastestTrials,
                lambda: FastestTrials(fastest_within(search, search.start - limit)[:ATTEMPTS]),
            ),
        )
        if choices is None:
            return self._unpruned()
        for trial in choices.trials:
            variant = self._run(search, trial)
            drop = session.drop(session.original, variant.module, limit)
            if drop is None or not drop.above:
                break
        else:
            return self.lossless_only(step)

        def finish(variant: Variant, checked: Verification) -> Record:
            record = self._final(variant, checked, search.candidates)
            assert record.speedup is not None
            text = f"{record.speedup.speedup:.2f}x as fast within an accuracy drop of {limit:g}"
            return replace(record, summary=text)

        return self._must_ship(variant, finish)

    def _unpruned(self) -> Outcome:
        """Nothing can be removed: what is left are number formats, each kept where it helps."""
        recipe = self.session.recipe
        if half_precision_steps(recipe) or integer_steps(recipe):
            return self.whole_recipe()
        return self.lossless_only(None)

    def _opened(self, step: Step) -> Search | None:
        """A search with something to choose from."""
        progress, recipe = self.session.progress, self.session.recipe
        progress.expect(expected(recipe, opened=True, search=True))
        search = self._searched(step, lambda: Search.of(self.lab, step, self.lossless.latency))
        return search if search is not None and search.problem.choices else None

    def _searched(self, step: Step, work: Callable[[], T]) -> T | None:
        """The result of `work` for a step of the recipe.

        None if it fails: the step is then left out with the reason.
        """
        try:
            return work()
        except Exception as error:
            reason = reason_of(error, f"the search for `{step.name}`")
            place = next(i for i, s in enumerate(self.session.recipe.adjust) if s is step)
            self.session.exclusions.leave_out_step(place, reason)
            note = f"the search for `{step.name}`: {reason}; the run goes on without it"
            self.session.progress.note(note)
            return None

    def _run(self, search: Search, trial: Trial) -> Variant:
        runner = StepRunner(self.session, search.decision(trial))
        return runner.all(self.session.trusted(trial.runtime))

    def _final(
        self, variant: Variant, checked: Verification, tried: tuple[Candidate, ...]
    ) -> Record:
        rows = (*self.lossless.tried, *tried, _row("final", checked))
        return final_record(self.session, self.record, variant, checked, rows)

    def _shipped(
        self, variant: Variant, finish: Callable[[Variant, Verification], Record | None]
    ) -> Outcome | None:
        return ship(self.session, variant, self.record, self.out, self.force, finish)

    def _must_ship(
        self, variant: Variant, finish: Callable[[Variant, Verification], Record]
    ) -> Outcome:
        outcome = self._shipped(variant, finish)
        assert outcome is not None
        return outcome


def _row(label: str, checked: Verification) -> Candidate:
    accuracy = checked.quality.final if checked.quality else None
    return candidate(label, checked.final, accuracy, chosen=True)
