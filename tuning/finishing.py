"""A contender finished: built and trained, staged, verified in a fresh process."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from ..checkpoints.staging import Staged
from ..core.records import Candidate, Record, Verification
from ..search.choice import Contender, Standing
from ..search.target import is_set, share_of_target
from ..search.trials import candidate
from ..search.variant import Variant
from .compare_backends import under_fastest
from .delivery import staged, verified
from .exclusions import reason_of
from .ledger import MEASURING
from .session import Session

FLIPPED = 0.001  # of the examples, by rounding
Make = Callable[[], Variant]  # the whole recipe, with training


@dataclass(frozen=True)
class Begun:
    """Journal entries that follow are of this variant."""

    content: str


@dataclass(frozen=True)
class Finished:
    """A verified variant whose artifact is staged, ready to be sealed."""

    label: str
    artifact: Staged
    variant: Variant
    checked: Verification
    standing: Standing

    def row(self, label: str, chosen: bool = False) -> Candidate:
        quality = self.checked.quality
        return candidate(label, self.checked.judged, quality.final if quality else None, chosen)


@dataclass(frozen=True)
class Finisher:
    """`stack` keeps every staged artifact until one is sealed: the best is known only then."""

    session: Session
    record: Record
    out: Path
    stack: ExitStack

    def __call__(self, contender: Contender[Make]) -> Finished:
        """Raises whatever the variant fails with; the report names it."""
        session, label = self.session, contender.label
        session.journal.mark("finish", Begun(contender.content or label))
        try:
            return self._finished(contender)
        except Exception as error:
            reason = reason_of(error, label)
            session.exclusions.set_aside(label, reason)
            session.progress.note(f"{label}: {reason}")
            raise

    def _finished(self, contender: Contender[Make]) -> Finished:
        session = self.session
        variant = contender.source()
        with session.ledger.spends(MEASURING):
            variant = under_fastest(session, variant)
        artifact = self.stack.enter_context(staged(session, variant, self.record, self.out))
        artifact, variant, checked = verified(session, artifact, variant, self.record)
        standing = standing_after(session, checked, contender)
        if not standing.usable:
            session.progress.note(f"{contender.label}: measured slower than the original")
        return Finished(contender.label, artifact, variant, checked, standing)


def standing_after(session: Session, checked: Verification, contender: Contender[Make]) -> Standing:
    """Where the artifact stands by what the fresh process says: without labels, by how often it
    gives the original's answers.

    What was measured while the machine was disturbed does not speak against it. Of an exact one a
    few flipped examples count as nothing, but not what breaks the limit.
    """
    target, limit = session.job.target, session.recipe.limits.max_drop
    share = share_of_target(target, checked) if is_set(target) else 1.0 / checked.comparison.low
    if checked.disturbed and contender.known:
        share = min(share, contender.standing.share)
    quality = checked.quality
    cost = (quality.drop or 0.0) if quality else 0.0
    if session.is_by_answers and quality is not None and quality.agreement is not None:
        cost = 1.0 - quality.agreement
    if contender.exact and cost <= max(limit, FLIPPED):
        cost = 0.0
    return Standing(share, cost, cost, usable=checked.comparison.finding != "slower")
