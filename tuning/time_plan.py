"""`limits.minutes`, divided by what the run's kinds of work are measured to cost.

The end is kept free first: verification in a fresh process twice, with the evaluation that has
the last word, and the training of what is shipped. The search has the rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace

from ..profiling.gate import working
from .ledger import BUILDING, EVALUATING, JUDGING, MEASURING, TRAINING, VERIFYING, WRITING

AGAIN = 0.2  # of the last word's seconds, at least, for each further finished variant
EVALUATED = 0.14  # of the limit, at most, for all evaluation together
DECIDED, SCORED = (
    0.015,
    0.025,
)  # of the limit: steps on evaluation data, candidates on held-out data
TRAINED = 0.35  # of what is left when the plan is made: the most for one pass of training
SEARCHED = 0.1  # of the limit, at least, before rounds are cut
FLOOR = 1.5
SHORTEST = 15  # steps' worth of time: batch norms, learning rates to try, scores
FEWEST, MOST = 128, 2048  # examples that decide on the way
SCORINGS = 24  # candidates and checks of a training that are scored
ROUNDS = 2
UNMEASURED_SHARE = 0.5  # for the search where nothing was planned
MEASURED = 12.0  # seconds that a fresh process measures and compares for, until one is seen
STEP_SECONDS = 2.0  # of measuring for one step of a recipe
CONVERTED = 8.0  # seconds to convert a variant for another library, and to measure it there
COMPILED = 45.0  # seconds to compile a variant and to measure what came of it, until one is seen
WAITED, PATIENT = 60.0, 0.4  # seconds in a search, and of what is left at the end, for quiet
LEAST_WAITED = 10.0
STUCK, TIMES_STUCK = 900.0, 10.0  # seconds at least, and times what it costs: it will never end
SLACK = 1.1  # what is kept free for work that is measured to take 1


@dataclass(frozen=True)
class Costs:
    """Seconds: to read an example, to run the original on it, to build and to measure a candidate,
    of one optimizer step, of a verification without its evaluation, of writing an artifact, of
    compiling it where the runtime asks for that."""

    reading: float = 0.0
    forward: float = 0.0
    building: float = 1.0
    measuring: float = 2.0
    step: float = 0.0
    verification: float = 15.0
    writing: float = 3.0
    compiling: float = 0.0

    @property
    def candidate(self) -> float:
        return self.building + self.measuring


@dataclass(frozen=True)
class Work:
    """A run's tasks: `total` examples to evaluate on (0 where unknown), `decisions` on some of
    them, optimizer steps of the recipe's training, and whether there is a search. `share`: the
    part of the original's time that the shipped variant is expected to take."""

    total: int = 0
    decisions: int = 0
    training_steps: int = 0
    searches: bool = False
    has_data: bool = False
    share: float = 1.0


@dataclass(frozen=True)
class Schedule:
    """Seconds for each kind of work, and sizes. `examples`: of all evaluation data, 0 for all.

    `stepping`: to measure the recipe's steps one by one. `cut`: what did not fit, in words.
    """

    search: float
    training: float
    judging: float
    rounds: int
    candidates: int
    examples: int = 0
    decided_on: int = MOST
    scored_on: int = MOST
    stepping: float = 0.0
    cut: tuple[str, ...] = ()


def schedule(costs: Costs, work: Work, limit: float, left: float) -> Schedule:
    """Divide `left` of `limit` seconds."""
    decided_on = _afforded(
        DECIDED * limit, costs.reading, costs.forward * (2 * work.decisions + 1), work.total
    )
    scored_on = _afforded(SCORED * limit, costs.reading, costs.forward * SCORINGS, 0)
    cut = []
    on_the_way = _on_the_way(costs, work, decided_on, scored_on)
    most = max(0.0, EVALUATED * limit - on_the_way)
    both = costs.reading + (1.0 + work.share) * costs.forward
    judging, examples = work.total * both if work.has_data else 0.0, 0
    if work.has_data and (not work.total or judging > most):
        judging, examples = most, max(1, math.floor(most / max(both, 1e-9)))
        if work.total:
            cut.append(f"the last word on {examples:,} of {work.total:,} examples")
    wanted = work.training_steps * costs.step * SLACK
    stepping = STEP_SECONDS * work.decisions
    free = left - costs.verification - judging - costs.writing - costs.compiling - stepping
    training = min(wanted, max(0.0, TRAINED * free))
    rounds, search = ROUNDS, free - costs.verification - training
    if search < (SEARCHED * limit if work.searches else 0.0):
        rounds, search = 1, free - training
        cut.append("one round of verification instead of two")
    if training < wanted and costs.step:
        fit = math.floor(training / (costs.step * SLACK))
        cut.append(f"training of about {fit:,} of {work.training_steps:,} steps")
    search = max(0.0, search) if work.searches else 0.0
    return Schedule(
        search, training, judging, rounds, math.floor(search / max(costs.candidate, 1e-3)),
        examples, decided_on, scored_on, stepping, tuple(cut),
    )  # fmt: skip


def _on_the_way(costs: Costs, work: Work, decided_on: int, scored_on: int) -> float:
    """Seconds of evaluation before the end."""
    deciding = decided_on * (costs.reading + 2 * work.decisions * costs.forward)
    scoring = scored_on * (costs.reading + SCORINGS * costs.forward) if work.searches else 0.0
    return deciding + scoring if work.has_data else 0.0


def _afforded(seconds: float, once: float, often: float, total: int) -> int:
    """Examples that are read once and run often, at least a few."""
    fit = seconds / max(once + often, 1e-9)
    # Fewer than FEWEST only where they would take much more than their share.
    count = max(fit, min(FEWEST, FLOOR * fit))
    return max(1, math.floor(min(count, MOST, total or MOST)))


@dataclass(frozen=True)
class Sizes:
    """Examples of a plan that decide, as the journal keeps them."""

    decided_on: int
    scored_on: int

    @classmethod
    def of(cls, made: Schedule) -> Sizes:
        return cls(made.decided_on, made.scored_on)


@dataclass
class TimePlan:
    """A run's clock, its costs as far as they are known, and the plan made of both."""

    limit: float = math.inf
    clock: Callable[[], float] = working
    started: float = field(default_factory=working)
    costs: Costs = field(default_factory=Costs)
    made: Schedule | None = None
    planned: dict[str, float] = field(default_factory=dict)
    last_run: float = 0.0
    judged: float = 0.0
    _seen: set[str] = field(default_factory=set)

    @property
    def end(self) -> float:
        return self.started + self.limit

    @property
    def left(self) -> float:
        return self.end - self.clock()

    def part(self, seconds: float) -> TimePlan:
        """A clock of its own for a part of the run that may take so long; costs are known."""
        return replace(
            self, limit=seconds, started=self.clock(), made=None, planned={}, last_run=0.0,
            judged=0.0, _seen=set(self._seen),
        )  # fmt: skip

    def make(self, work: Work, sizes: Sizes | None = None) -> Schedule:
        """Divide what is left; `sizes` where they are settled already."""
        made = schedule(self.costs, work, self.limit, self.left)
        if sizes is not None:
            made = replace(made, decided_on=sizes.decided_on, scored_on=sizes.scored_on)
        self.made = made
        return made

    def knows_opening(self, seconds: float) -> None:
        """Another process opens the same model once more, and measures it for a while."""
        if "verification" not in self._seen:
            self.knows(verification=seconds + MEASURED)

    def knows_runtime(self, compiled: bool, late: bool = False) -> None:
        """Expect a compiler at the end, or none."""
        if "compiling" not in self._seen:
            self.knows(compiling=COMPILED if compiled else CONVERTED if late else 0.0)

    def knows(self, **seconds: float) -> None:
        """Costs by name; what is measured replaces what was estimated."""
        self.costs = replace(self.costs, **seconds)

    @contextmanager
    def timed(self, cost: str) -> Iterator[None]:
        """The block is one of its kind: the first one replaces the estimate, later ones raise or
        lower it by half of the difference."""
        begun = self.clock()
        yield  # what fails says nothing of what one takes
        self.saw(cost, self.clock() - begun)

    @contextmanager
    def running(self) -> Iterator[None]:
        """The block runs a recipe's steps, with training."""
        begun = self.clock()
        yield
        self.last_run = self.clock() - begun

    def building(self) -> AbstractContextManager[None]:
        return self.timed("building")

    def measuring(self) -> AbstractContextManager[None]:
        return self.timed("measuring")

    def compiling(self) -> AbstractContextManager[None]:
        return self.timed("compiling")

    def saw(self, cost: str, seconds: float) -> None:
        known = getattr(self.costs, cost)
        share = 0.5 if cost in self._seen else 1.0
        self._seen.add(cost)
        self.knows(**{cost: known + share * (seconds - known)})

    @property
    def final(self) -> float:
        """Seconds of one verification of what may be shipped, compiled and evaluated, and of
        writing it."""
        judging, costs = self.made.judging if self.made else 0.0, self.costs
        return SLACK * (costs.compiling + costs.verification + judging + costs.writing)

    @property
    def search_deadline(self) -> float:
        """When the search has to end, so that training and all rounds still fit."""
        if self.made is None:
            return self.started + UNMEASURED_SHARE * self.limit
        more = (self.made.rounds - 1) * SLACK * self.costs.verification
        return self.end - self.final - more - self.made.training - self.made.stepping

    @property
    def patience(self) -> float:
        """Seconds that the last measurement may wait for a quiet machine: of what is left beside
        all that is still to be done."""
        if self.limit == math.inf:
            return WAITED
        free = self.left - self.costs.verification - self.costs.writing - self._judging_at_most
        return max(LEAST_WAITED, min(PATIENT * self.left, free))

    @property
    def search_patience(self) -> float:
        """The same for a measurement that belongs to the search, which ends in time."""
        free = self.search_deadline - self.clock() - self.costs.verification
        return max(LEAST_WAITED, min(WAITED, free))

    @property
    def stuck_after(self) -> float:
        """Seconds after which a verification that has not ended never will."""
        costs = self.costs.verification + self._judging_at_most
        return max(STUCK, TIMES_STUCK * costs + self.patience)

    @property
    def _judging_at_most(self) -> float:
        return self.judging_seconds if self.made and self.made.judging else 0.0

    def in_search(self) -> bool:
        return self.clock() < self.search_deadline

    def another_final_fits(self) -> bool:
        """True if one more variant can be trained, verified and evaluated before the end."""
        planned = self.made.training + self.made.stepping if self.made else 0.0
        return self.left >= self.final + (self.last_run or planned)

    @property
    def training_deadline(self) -> float:
        """For a training that begins now: half of what is free, or what the plan has for it."""
        if self.limit == math.inf:
            return math.inf
        now, last = self.clock(), self.end - self.final
        planned = self.made.training if self.made else 0.0
        return min(last, now + max(1.2 * planned, 0.5 * (last - now)))

    @property
    def too_late_to_train(self) -> bool:
        """True if not even what goes before the first steps of a training fits."""
        return self.training_deadline - self.clock() < SHORTEST * self.costs.step

    @property
    def work_deadline(self) -> float:
        """For any other long work on data: what is made of it must still be verified."""
        return self.end - self.final

    @property
    def judging_seconds(self) -> float:
        """The most for the evaluation of one artifact that is verified now."""
        if self.made is None:
            return math.inf
        free = self.left - self.costs.verification - self.costs.writing
        if self.made.examples:  # cut already: its share of the run is for all finished variants
            most = max(AGAIN * self.made.judging, self.made.judging - self.judged)
            return max(1.0, min(most, free))
        # A busy machine takes longer than planned; where there is time, all is read nevertheless.
        most = max(1.5 * self.made.judging, EVALUATED * self.limit)
        return max(1.0, 0.3 * self.made.judging, min(most, free))


def planned_seconds(
    made: Schedule, costs: Costs, work: Work, spent: Mapping[str, float]
) -> dict[str, float]:
    """Seconds of the whole run by the ledger's kinds of work, where `spent` are gone already."""
    built = made.search * costs.building / costs.candidate
    rows = {
        MEASURING: made.search - built + made.stepping + costs.compiling,
        EVALUATING: _on_the_way(costs, work, made.decided_on, made.scored_on),
        BUILDING: built,
        TRAINING: made.training,
        VERIFYING: made.rounds * costs.verification,
        JUDGING: made.judging,
        WRITING: made.rounds * costs.writing,
    }
    whole = {kind: seconds + spent.get(kind, 0.0) for kind, seconds in rows.items()}
    return {kind: round(seconds, 1) for kind, seconds in whole.items() if seconds >= 0.05}


def plan_lines(made: Schedule, time: TimePlan, work: Work) -> list[str]:
    """The plan as a few short notes."""
    costs = time.costs
    rows = [f"plan: {time.left:.0f} s left of {time.limit:.0f} s"]
    if work.has_data:
        rows.append(
            f"evaluation: {_last_word(made, work)} at the end ({made.judging:.0f} s, "
            f"{1e3 * (costs.reading + costs.forward):.2g} ms each), "
            f"up to {made.decided_on:,} for a decision on the way"
        )
    if work.searches:
        rows.append(
            f"search: {made.search:.0f} s, room for about {made.candidates:,} candidates "
            f"({costs.candidate:.1f} s each), scored on {made.scored_on:,} examples"
        )
    if work.training_steps:
        rows.append(
            f"training: {made.training:.0f} s for up to {work.training_steps:,} steps "
            f"({costs.step:.2g} s each)"
        )
    rounds = f"{made.rounds} rounds" if made.rounds > 1 else "1 round"
    compiled = f", compiled in {costs.compiling:.0f} s" if costs.compiling else ""
    rows.append(f"verification: {rounds} ({costs.verification:.0f} s each){compiled}")
    if made.cut:
        rows.append(f"cut to fit `limits.minutes`: {'; '.join(made.cut)}")
    return rows


def _last_word(made: Schedule, work: Work) -> str:
    """The examples that it is spoken on, as far as that is known."""
    if not work.total:
        return f"all examples, at most {made.examples:,},"
    of = f" of {work.total:,}" if made.examples else ""
    return f"{made.examples or work.total:,}{of} examples"
