"""Rungs built one after another by one search: each finished, verified and put aside."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from ...configs.load import dump_recipe
from ...core.errors import ArtifactError, UsageError, text_line
from ...core.records import LeftAlone, Record, Target, Verification
from ...search.choice import Contender, Standing
from ...search.search import Search
from ...search.target import share_of_target
from ..candidates import new_candidate
from ..conclusion import best_finished, whole_record
from ..contest import ORIGINAL, Contest, Lossless
from ..delivery import reports
from ..finishing import Finished, Finisher, Make, standing_after
from ..ledger import BUILDING, Ledger
from ..planning import work_of
from ..schedule import Sizes
from ..session import Session
from ..time_plan import TimePlan
from ..tune import pruning_step, trades_accuracy
from .goals import goal_name

TOP, SEARCH = "original", "the search of all rungs"
NO_TIME = "not enough of `limits.minutes` is left for it"
SUMMARY = "the top of a ladder: it computes what the original does"


@dataclass(frozen=True)
class RungBegun:
    """Journal entries that follow are of this rung."""

    goal: str


@dataclass(frozen=True)
class BuiltRung:
    """A verified artifact in `folder`, out of the way of the next ones."""

    name: str
    folder: Path
    record: Record
    checked: Verification


@dataclass
class RungBuilder:
    """`session`: with a plan, and no target. `aside`: a folder for what is finished, on the disk of
    `out`. `left_out`: goals that gave no rung, of which `missed` are not met by any. `search`: what
    it knows by now; None where there is nothing to choose from."""

    session: Session
    record: Record
    lossless: Lossless
    out: Path
    aside: Path
    built: list[BuiltRung] = field(default_factory=list)
    left_out: list[LeftAlone] = field(default_factory=list)
    search: Search | None = None
    missed: list[str] = field(default_factory=list)
    _opened: bool = False
    _time: TimePlan | None = None
    _known: dict[str, Finished] = field(default_factory=dict)

    @property
    def rung_seconds(self) -> float:
        """The least that a rung takes: it is written, verified and evaluated."""
        return (self._time or self.session.time).final

    def top(self, seconds: float) -> BuiltRung:
        """The lossless variant, or the original as it is where that measures slower."""
        session = self._session(self.session.job.target, seconds, lossy=False)
        contest = Contest(session, self.record, self.lossless, self.out, None, False)
        plain = Contender[Make](ORIGINAL, Standing(1.0), lambda: new_candidate(session), exact=True)
        self._begin(session, TOP)
        with ExitStack() as stack, session.ledger.spends(BUILDING):
            finisher = Finisher(session, self.record, self.out, stack)
            best = self._first_usable(contest, (contest.known[0], plain), finisher)
            return self._kept(contest, best, TOP, SUMMARY)

    def open_search(self, seconds: float) -> Search | None:
        """The search of all rungs; None where there is nothing to choose from."""
        session = self._session(self.session.job.target, seconds)
        session.journal.mark("rung", RungBegun(SEARCH))
        step = pruning_step(session.recipe)
        contest = Contest(session, self.record, self.lossless, self.out, step, True)
        with session.ledger.spends(BUILDING):
            self.search = contest.opened()
        self._opened = True
        return self.search

    def rung(self, target: Target, seconds: float) -> None:
        """The most accurate variant for this target, where it gives a rung of its own."""
        name, above = goal_name(target), self.built[-1]
        if share_of_target(target, above.checked) <= 1.0:
            self.leave_out(name, f"`{above.name}` meets it already", missed=False)
            return
        session = self._session(target, seconds)
        if session.time.left < session.time.final:
            self.leave_out(name, NO_TIME)
            return
        self._begin(session, name)
        contest = self._contest(session, target)
        try:
            with ExitStack() as stack, session.ledger.spends(BUILDING):
                finisher = Finisher(session, contest.record, self.out, stack)
                known_first = partial(self._finished, contest, finisher)
                best, usable = best_finished(contest, known_first)
                late = not session.time.in_search()
                if reason := self._objection(best, usable, late):
                    self.leave_out(name, reason)
                else:
                    self._kept(contest, best, name)
        except (UsageError, ArtifactError):
            raise
        except Exception as error:
            self.leave_out(name, f"nothing could be finished: {text_line(error)}")
        finally:
            self.search = contest.searched or self.search

    def _contest(self, session: Session, target: Target) -> Contest:
        """With the top among what is finished: it need not be verified again."""
        recipe, record = session.recipe, replace(self.record, target=target)
        contest = Contest(
            session, record, self.lossless, self.out, pruning_step(recipe),
            trades_accuracy(recipe), earlier=self.search,
        )  # fmt: skip
        if self._opened and self.search is None:
            contest.search = None  # it need not find that out again
        top = next(iter(self._known.values()))
        # Where its verification was disturbed, what is known of it for this target stands.
        known = next(c for c in contest.known if c.label == top.label)
        standing = standing_after(session, top.checked, known)
        contest.finished[top.label] = replace(top, standing=standing)
        return contest

    def _finished(
        self,
        contest: Contest,
        finisher: Callable[[Contender[Make]], Finished],
        contender: Contender[Make],
    ) -> Finished:
        """As an earlier rung finished it, where it is the same variant."""
        known = self._known.get(contender.content or contender.label)
        if known is None:
            return finisher(contender)
        standing = standing_after(contest.session, known.checked, contender)
        return replace(known, label=contender.label, standing=standing)

    def _objection(self, best: Finished, usable: bool, late: bool) -> str:
        """The reason that the best of a contest is not a rung; empty if it is one."""
        if not usable:
            return "nothing faster than the original keeps to `limits.max_drop`"
        same = (r for r in self._known.values() if r.artifact is best.artifact)
        if next(same, None) is None:
            return ""
        if self.search is not None and not late:
            return (
                "nothing that comes nearer to it than the rungs above keeps to the recipe's limits"
            )
        return "the rungs above are the nearest to it that was found in the time that was left"

    def _kept(
        self, contest: Contest, best: Finished, name: str, summary: str | None = None
    ) -> BuiltRung:
        """Describe the artifact and put it aside, as the fresh process measured it."""
        record = whole_record(contest, best)
        record = replace(record, summary=summary or record.summary)
        recipe = dump_recipe(contest.session.recipe)
        best.artifact.describe(record, best.variant.runtime, recipe, reports(record))
        folder = self.aside / f"{len(self.built)}-{name}"
        os.replace(best.artifact.folder, folder)
        contents = {c.label: c.content for c in contest.known}
        self._known[contents.get(best.label) or best.label] = best
        self.built.append(BuiltRung(name, folder, record, best.checked))
        contest.session.progress.note(f"rung `{name}`: {record.summary}")
        return self.built[-1]

    def _first_usable(
        self,
        contest: Contest,
        contenders: tuple[Contender[Make], ...],
        finisher: Callable[[Contender[Make]], Finished],
    ) -> Finished:
        """Raises what the last one fails with, where none can be finished."""
        best: Finished | None = None
        for contender in contenders:
            try:
                best = contest.finishes(contender, finisher)
            except (UsageError, ArtifactError):
                raise
            except Exception:
                if best is None and contender is contenders[-1]:
                    raise
                continue
            if best.standing.usable:
                break
        assert best is not None
        return best

    def _session(self, target: Target, seconds: float, lossy: bool = True) -> Session:
        """The session for one target, with a plan of its own: costs are known from the last."""
        session, made = self.session, self.session.time.made
        assert made is not None
        time = (self._time or session.time).part(seconds)
        work = work_of(session.data, session.recipe, lossy, lossy)
        time.make(work, Sizes.of(made))
        self._time = time
        return replace(session, job=replace(session.job, target=target), time=time, ledger=Ledger())

    def _begin(self, session: Session, name: str) -> None:
        session.progress.stage(f"rung `{name}`")
        session.journal.mark("rung", RungBegun(name))

    def leave_out(self, name: str, reason: str, *, missed: bool = True) -> None:
        """Say that a goal gives no rung; `missed`: no other one meets it either."""
        self.session.progress.note(f"rung `{name}` is left out: {reason}")
        self.left_out.append(LeftAlone(name, reason))
        if missed:
            self.missed.append(name)
