"""`limits.minutes`, divided by what the run's kinds of work are measured to cost.

The end is kept free first: verification in a fresh process twice, with the evaluation that has
the last word, and the training of what is shipped. The search has the rest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from .ledger import BUILDING, EVALUATING, JUDGING, MEASURING, TRAINING, VERIFYING, WRITING

EVALUATED = 0.14  # of the limit, at most, for all evaluation together
DECIDED, SCORED = 0.015, 0.025  # of the limit: what decides about steps, and about candidates
TRAINED = 0.35  # of what is left when the plan is made: the most for one pass of training
SEARCHED = 0.1  # of the limit, at least, before rounds are cut
FLOOR = 1.5
FEWEST, MOST = 128, 2048  # examples that decide on the way
SCORINGS = 24  # candidates and checks of a training that are scored
ROUNDS = 2
STEP_SECONDS = 2.0  # of measuring for one step of a recipe
SLACK = 1.1  # what is kept free for work that is measured to take 1


@dataclass(frozen=True)
class Costs:
    """Seconds: to read an example, to run the original on it, to build and to measure a candidate,
    of one optimizer step, of a verification without its evaluation, of writing an artifact, of
    compiling it where the runtime asks for that, of opening what ships again to report on it."""

    reading: float = 0.0
    forward: float = 0.0
    building: float = 1.0
    measuring: float = 2.0
    step: float = 0.0
    verification: float = 15.0
    writing: float = 3.0
    compiling: float = 0.0
    reporting: float = 0.0

    @property
    def candidate(self) -> float:
        return self.building + self.measuring


@dataclass(frozen=True)
class Work:
    """A run's tasks: `total` examples to evaluate on (0 where unknown), `decisions` on some of
    them, optimizer steps of the recipe's training, and whether there is a search. `share`: the
    part of the original's time that the shipped variant is expected to take. `halved`: `total` is
    the half that reports; what is finished is judged on the other one, of `judging` examples (0
    where unknown).
    """

    total: int = 0
    decisions: int = 0
    training_steps: int = 0
    searches: bool = False
    has_data: bool = False
    share: float = 1.0
    halved: bool = False
    judging: int = 0


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
    all_of_it = work.judging if work.halved else work.total
    decided_on = _afforded(
        DECIDED * limit, costs.reading, costs.forward * (2 * work.decisions + 1), all_of_it
    )
    scored_on = _afforded(SCORED * limit, costs.reading, costs.forward * SCORINGS, work.judging)
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
    free -= costs.reporting
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
    if work.halved:  # by each fresh process that verifies
        deciding += ROUNDS * decided_on * (costs.reading + 2 * costs.forward)
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
        VERIFYING: made.rounds * costs.verification + costs.reporting,
        JUDGING: made.judging,
        WRITING: made.rounds * costs.writing,
    }
    whole = {kind: seconds + spent.get(kind, 0.0) for kind, seconds in rows.items()}
    return {kind: round(seconds, 1) for kind, seconds in whole.items() if seconds >= 0.05}


def plan_lines(made: Schedule, costs: Costs, work: Work, left: float, limit: float) -> list[str]:
    """The plan as a few short notes, `left` of `limit` seconds before its work."""
    rows = [f"plan: {left:.0f} s left of {limit:.0f} s"]
    if work.has_data:
        seconds = made.judging + costs.reporting
        rows.append(
            f"evaluation: {_last_word(made, work)} at the end ({seconds:.0f} s, "
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
    return f"{made.examples or work.total:,}{of} examples{' that report' if work.halved else ''}"
