"""The end of a run: the best contender is finished and sealed, with a record that says why."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from ..core.errors import MeasureError
from ..core.records import Record
from ..search.advice import advice
from ..search.choice import UNUSABLE, Contender, Preference, finish_best
from ..search.contenders import LOSSLESS
from ..search.target import is_set, original_share, summary
from .contest import ORIGINAL, WHOLE, Contest
from .delivery import Outcome, final_record, reported, sealed
from .finishing import Finished, Finisher, Make


def conclude(contest: Contest, out: Path, force: bool) -> Outcome:
    """Finish the best of what may ship and put it at `out`.

    Raises MeasureError where everything measured slower than the original.
    """
    session = contest.session
    with ExitStack() as stack:
        best, usable = best_finished(contest, Finisher(session, contest.record, out, stack))
        if not usable:
            raise _nothing_faster(contest, best)
        record = whole_record(contest, best)
        return sealed(session, best.artifact, best.variant, record, out, force)


def best_finished(
    contest: Contest, finisher: Callable[[Contender[Make]], Finished]
) -> tuple[Finished, bool]:
    """The best contender, finished, as long as time allows the next one; and True if it may ship:
    where everything measured slower than the original it may not."""
    session = contest.session
    limits = session.recipe.limits
    preference = Preference(limits.max_drop, limits.prefer, session.job.target.fastest)

    def finish(contender: Contender[Make]) -> Finished:
        return contest.finishes(contender, finisher)

    best = finish_best(contest.contenders, finish, preference, session.time.another_final_fits)
    return best, preference.of(best.standing) != UNUSABLE


def whole_record(contest: Contest, best: Finished) -> Record:
    """The record of what ships, with everything else that was tried."""
    others = (f for f in contest.finished.values() if f is not best)
    rows = (
        *contest.tried,
        *(f.row(f"{f.label}, finished but not shipped") for f in others),
        best.row("final", chosen=True),
    )
    session = contest.session
    # What was finished after it may have met a quieter machine.
    reference = min(best.checked.reference_ms, session.quiet_ms)
    checked = replace(reported(session, best.artifact, best.checked), reference_ms=reference)
    record = final_record(session, contest.record, best.variant, checked, rows)
    smallest = min(checked.judged.value_ms, contest.smallest_ms or checked.judged.value_ms)
    record = replace(
        record, smallest_reachable_ms=smallest, summary=_summary(contest, best, record, smallest)
    )
    return replace(record, advice=advice(record, (c.standing for c in contest.known)))


def _summary(contest: Contest, best: Finished, record: Record, smallest: float) -> str:
    """One sentence: what ships, and how it lies to what was asked for."""
    target, limit = record.target, contest.session.recipe.limits.max_drop
    assert record.speedup is not None
    gain = f"{record.speedup.speedup:.2f}x as fast"
    if best.label not in (LOSSLESS, ORIGINAL):
        if is_set(target):
            return summary(record, smallest)
        kept = target.fastest and not (record.limit_broken or record.limit_in_doubt)
        within = f" within an accuracy drop of {limit:g}" if kept else ""
        return f"{gain}{' with the whole recipe' if best.label == WHOLE else ''}{within}"
    if target.fastest:
        return "nothing faster than the lossless steps stays within the accuracy limit"
    if not is_set(target):
        return "no target was given: only the lossless steps were applied"
    if record.verdict != "met":
        return f"{summary(record, smallest)}; {_why_no_more(contest)}"
    if best.label == ORIGINAL:
        return "the original already meets the target, and nothing measured faster"
    if original_share(target, best.checked) <= 1.0:
        return "the original already meets the target: only the lossless steps were applied"
    return "the lossless steps are enough"


def _why_no_more(contest: Contest) -> str:
    """The reason that nothing lossy ships although the target is not met."""
    failed = next(iter(contest.session.exclusions.steps.values()), None)
    if failed is not None:
        return failed
    if contest.came_too_late:
        return "`limits.minutes` left no time for a search"
    if not contest.has_searched and WHOLE not in contest.finished:
        return "nothing in this recipe can trade accuracy for speed on this model"
    return "nothing that comes nearer to it stays within the accuracy limit"


def _nothing_faster(contest: Contest, best: Finished) -> MeasureError:
    checked, target = best.checked, contest.session.job.target
    meets = is_set(target) and original_share(target, checked) <= 1.0
    return MeasureError(
        "every variant measured slower than the original on this machine, so nothing was "
        f"written; the original takes {checked.baseline.value_ms:.3g} ms"
        + (", which meets the target as it is." if meets else ".")
    )
