"""A run's clock: what is left by its plan, corrected by what the work was seen to take."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace

from ..profiling.gate import working
from .schedule import EVALUATED, SLACK, Costs, Schedule, Sizes, Work, schedule

AGAIN = 0.2  # of the last word's seconds, at least, for each further finished variant
SHORTEST = 15  # steps' worth of time: batch norms, learning rates to try, scores
UNMEASURED_SHARE = 0.5  # for the search where nothing was planned
MEASURED = 12.0  # seconds that a fresh process measures and compares for, until one is seen
CONVERTED = 8.0  # seconds to convert a variant for another library, and to measure it there
COMPILED = 45.0  # seconds to compile a variant and to measure what came of it, until one is seen
WAITED, PATIENT = 60.0, 0.4  # seconds in a search, and of what is left at the end, for quiet
LEAST_WAITED, GRACE = 10.0, 15.0  # GRACE: beyond the limit, for a measurement that must be
STUCK, TIMES_STUCK = 900.0, 10.0  # seconds at least, and times what it costs: it will never end


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

    def knows_opening(self, seconds: float, reports: bool = False) -> None:
        """Another process opens the same model once more, and measures it for a while; one more
        only `reports` on it."""
        if "verification" not in self._seen:
            self.knows(verification=seconds + MEASURED)
        if "reporting" not in self._seen:
            self.knows(reporting=seconds if reports else 0.0)

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
        writing it and of reporting on it."""
        judging, costs = self.made.judging if self.made else 0.0, self.costs
        opened = costs.verification + costs.reporting
        return SLACK * (costs.compiling + opened + judging + costs.writing)

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
        free = self._free_at_the_end - self._judging_at_most
        least = max(0.0, min(LEAST_WAITED, free + GRACE))
        return max(least, min(PATIENT * self.left, free))

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
    def _free_at_the_end(self) -> float:
        """Seconds that are left beside those of opening and writing what ships."""
        costs = self.costs
        return self.left - costs.verification - costs.writing - costs.reporting

    @property
    def _judging_at_most(self) -> float:
        return self.judging_seconds if self.made and self.made.judging else 0.0

    def in_search(self, seconds: float = 0.0) -> bool:
        """True if work of `seconds` would still end within the search's time."""
        return self.clock() + seconds < self.search_deadline

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
        free = self._free_at_the_end
        if self.made.examples:  # cut already: its share of the run is for all finished variants
            most = max(AGAIN * self.made.judging, self.made.judging - self.judged)
            return max(1.0, min(most, free))
        # A busy machine takes longer than planned; where there is time, all is read nevertheless.
        most = max(1.5 * self.made.judging, EVALUATED * self.limit)
        return max(1.0, 0.3 * self.made.judging, min(most, free))

    def deciding_seconds(self, examples: int) -> float:
        """The most for both models on so many examples that decide: few, so that they are read even
        where the time is up."""
        cost = examples * (self.costs.reading + 2.0 * self.costs.forward)
        return max(1.0, 2.0 * cost, self.left - self.final)
