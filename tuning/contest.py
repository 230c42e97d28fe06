"""The variants that may ship: lossless, the original, those of a search or the whole recipe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TypeVar

from ..configs.recipe import Step
from ..core.records import Candidate, Latency, Record
from ..search import contenders as trials
from ..search.choice import Contender, Standing
from ..search.meet_target import explore
from ..search.number_formats import half_precision_steps, integer_steps
from ..search.search import Search
from ..search.target import budget_ms, is_set
from ..search.trials import Trial
from ..search.variant import Variant
from ..search.within_limit import fastest_within
from .candidates import new_candidate
from .exclusions import reason_of
from .finishing import Finished, Make
from .lab import SessionLab
from .session import Session
from .stages import expected
from .steps import StepRunner

ORIGINAL, WHOLE = "the original as it is", "the whole recipe"
T = TypeVar("T")


@dataclass(frozen=True)
class Lossless:
    """The latency that lossless steps reach, and the first rows of candidates."""

    latency: Latency
    runtime: str
    tried: tuple[Candidate, ...]


@dataclass(frozen=True)
class SearchResult:
    """The search has come to its end; its trials have entries of their own."""

    explored_ms: float


@dataclass
class Contest:
    """`prune`: the step that a search decides. `trades`: some step of the recipe costs accuracy.

    `finished`: what was trained and verified so far; `failed`: what could not be. `earlier`: the
    search for another target of the same job, from which this one goes on.
    """

    session: Session
    record: Record
    lossless: Lossless
    out: Path
    prune: Step | None
    trades: bool
    finished: dict[str, Finished] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)
    earlier: Search | None = None

    def contenders(self) -> list[Contender[Make]]:
        """All that may ship. The search runs once lossless work alone is not enough."""
        if self._needs_more and self.search is not None and is_set(self.session.job.target):
            explore(self.search)
        return self.known

    @property
    def known(self) -> list[Contender[Make]]:
        """All that is known by now; this begins no search."""
        lossless = Contender(trials.LOSSLESS, self._lossless_standing, self._lossless, exact=True)
        rows = [lossless, *self._original]
        if "search" not in self.__dict__ or not self._needs_more:
            return rows
        if self.search is None:
            return [*rows, *self._whole]
        return [*rows, *(c for c in self._trials if c.label != trials.LOSSLESS)]

    @property
    def _needs_more(self) -> bool:
        """True if what costs accuracy takes part."""
        target = self.session.job.target
        if not (is_set(target) or target.fastest) or not self.trades:
            return False
        return self.has_searched or not (self._is_enough or self._is_late)

    @property
    def _is_enough(self) -> bool:
        """True if something exact meets the target, as far as is known."""
        if not is_set(self.session.job.target):
            return False
        rows = ((trials.LOSSLESS, self._lossless_standing), (ORIGINAL, self._original_standing))
        return any(s.share <= 1.0 and s.usable and n not in self.failed for n, s in rows)

    @property
    def _is_late(self) -> bool:
        """True if the search's time is over before it began: opening one takes long already. One
        for another target has left trials behind, so that much of this one is done."""
        return self.earlier is None and not self.session.time.in_search()

    def finishes(
        self, contender: Contender[Make], finish: Callable[[Contender[Make]], Finished]
    ) -> Finished:
        """Remember what comes of a contender. Raises what it fails with."""
        self.failed.add(contender.label)
        result = self.finished[contender.label] = finish(contender)
        self.failed.discard(contender.label)
        return result

    @cached_property
    def search(self) -> Search | None:
        """The search with all its trials; None where there is nothing to choose from."""
        step = self.prune
        if step is None or not (search := self._opened(step)):
            return None
        done = self.finished.get(trials.LOSSLESS)
        if done is not None:
            search.trials[0].share = done.standing.share
            search.trials[0].quiet_ms = done.checked.reference_ms
        known = self._searched(step, partial(self._explored, search))
        return search if known is not None else None

    def opened(self) -> Search | None:
        """A search with something to choose from, with no trials for a target; None otherwise."""
        return self._opened(self.prune) if self.prune is not None else None

    @property
    def tried(self) -> tuple[Candidate, ...]:
        """Rows of the record for everything but what ships, in ms of a quiet machine."""
        searched = self.searched
        rows = (*self.lossless.tried, *(searched.candidates if searched else ()))
        return tuple(row.scaled(self._quiet_scale) for row in rows)

    @property
    def smallest_ms(self) -> float | None:
        """The least latency of any trial, in ms of a quiet machine."""
        if self.searched is None:
            return None
        usable = [t.latency.value_ms for t in self.searched.trials if not t.failed]
        return self._quiet_scale * min(usable)

    @property
    def _quiet_scale(self) -> float:
        """From ms of the reference, in which trials are measured, to ms of the quiet machine."""
        return self.session.quiet_ms / self.session.reference.value_ms

    @property
    def came_too_late(self) -> bool:
        """True if something lossy was wanted and nobody had the time to look for it."""
        return self.trades and "search" not in self.__dict__

    @property
    def has_searched(self) -> bool:
        return self.searched is not None

    @property
    def searched(self) -> Search | None:
        """The search if it was needed; this does not begin it."""
        return self.search if "search" in self.__dict__ else None

    @property
    def _original(self) -> list[Contender[Make]]:
        target, session = self.session.job.target, self.session
        if not is_set(target) and not target.fastest:
            return []  # where nothing is faster, there is nothing to be had
        make = lambda: new_candidate(session)  # noqa: E731
        return [Contender(ORIGINAL, self._original_standing, make, exact=True)]

    @property
    def _original_standing(self) -> Standing:
        if ORIGINAL in self.finished:
            return self.finished[ORIGINAL].standing
        target = self.session.job.target
        return Standing(self.session.quiet_ms / target.ms if target.ms else target.speedup or 1.0)

    @property
    def _whole(self) -> list[Contender[Make]]:
        """Nothing is known of it before it was tried, so it is."""
        recipe = self.session.recipe
        if self.prune is not None and not (half_precision_steps(recipe) or integer_steps(recipe)):
            return []
        run, standing = StepRunner(self.session, None), Standing(0.0)
        if WHOLE in self.finished:
            standing = self.finished[WHOLE].standing
        return [Contender(WHOLE, standing, lambda: run.all(self._runtime), known=False)]

    @property
    def _trials(self) -> list[Contender[Make]]:
        search = self.search
        assert search is not None
        return [
            Contender(c.label, c.standing, partial(self._run, search, c.source), content=c.content)
            for c in trials.contenders(search)
        ]

    @property
    def _lossless_standing(self) -> Standing:
        done = self.finished.get(trials.LOSSLESS)
        if done is not None:
            return done.standing
        session, ms = self.session, self.lossless.latency.high_ms
        return Standing(ms / budget_ms(session.job.target, session.reference, session.quiet_ms))

    @property
    def _runtime(self) -> str:
        """The runtime of the model after lossless steps."""
        return self.session.trusted(self.lossless.runtime)

    def _lossless(self) -> Variant:
        return StepRunner(self.session, None, lossless=True).all(self._runtime)

    def _run(self, search: Search, trial: Trial) -> Variant:
        runner = StepRunner(self.session, search.decision(trial))
        return runner.all(self.session.trusted(trial.runtime))

    def _explored(self, search: Search) -> SearchResult:
        def result() -> SearchResult:
            if self.session.job.target.fastest:
                fastest_within(search, search.start - self.session.recipe.limits.max_drop)
            else:
                explore(search)
            return SearchResult(search.budget_ms)

        known = self.session.journal.kept("choice", SearchResult, result)
        search.explored_ms = known.explored_ms
        return known

    def _opened(self, step: Step) -> Search | None:
        """A search with something to choose from."""
        session, free = self.session, self.lossless.latency
        lab = SessionLab(session, self.record, self.out, self._runtime)
        if self.earlier is not None:
            return self.earlier.toward(lab)
        session.progress.expect(expected(session.recipe, opened=True, search=True))
        search = self._searched(step, lambda: Search.of(lab, step, free))
        return search if search is not None and search.problem.choices else None

    def _searched(self, step: Step, work: Callable[[], T]) -> T | None:
        """The result of `work` for a step of the recipe.

        None if it fails: the step is then left out with the reason.
        """
        session = self.session
        try:
            return work()
        except Exception as error:
            reason = reason_of(error, f"the search for `{step.name}`")
            place = next(i for i, s in enumerate(session.recipe.adjust) if s is step)
            session.exclusions.leave_out_step(place, reason)
            note = f"the search for `{step.name}`: {reason}; the run goes on without it"
            session.progress.note(note)
            return None
