"""The main job: the most accurate variant that meets the target on this machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..adjusters.registry import ADJUSTERS
from ..checkpoints.artifact import check_writable
from ..configs.recipe import Recipe, Step
from ..core.errors import UsageError
from ..core.progress import Progress
from ..core.records import Latency, Record
from ..profiling.undisturbed import ATTEMPTS
from ..search.target import budget_ms, feasibility, is_set
from ..search.trials import candidate
from ..search.variant import Variant
from . import fresh_process
from .candidates import build
from .conclusion import conclude
from .contest import Contest, Lossless
from .delivery import Outcome, baseline_record
from .job import Job
from .ledger import BUILDING
from .session import Session, open_session
from .stages import OPENING, expected

SURE = 0.9  # of the budget


def tune(
    job: Job,
    recipe: Recipe,
    progress: Progress,
    out: Path,
    *,
    force: bool = False,
    dry_run: bool = False,
    resume: bool = False,
) -> Outcome:
    """Tune `job.checkpoint` to its target and write the artifact to `out`.

    `resume` goes on after the last stage that an interrupted run of the same job finished, with
    all of `limits.minutes` for the rest. Raises the errors of core/errors.py; whatever happens,
    `out` is either complete or as it was.
    """
    if not dry_run:
        check_writable(out, force)
    stages = OPENING if dry_run else expected(recipe, search=pruning_step(recipe) is not None)
    progress.expect(stages, 60 * recipe.limits.minutes)
    with fresh_process.started_ahead(not dry_run):
        return _tuned(job, recipe, progress, out, force, dry_run, resume)


def _tuned(
    job: Job, recipe: Recipe, progress: Progress, out: Path,
    force: bool, dry_run: bool, resume: bool,
) -> Outcome:  # fmt: skip
    session = open_session(job, recipe, progress)
    if not dry_run:
        session = session.with_journal("tune", resume)
    session, record, lossless = measured_opening(session)
    if session.job.target.fastest and session.data is None:
        raise UsageError("`--fastest` keeps to an accuracy limit, so it needs `data`.")
    if dry_run:
        progress.note(_feasible(session, lossless.latency))
        return Outcome(replace(record, candidates=lossless.tried, summary="dry run"), None)
    session = _planned(session, lossless)
    progress.note(_feasible(session, lossless.latency))
    contest = Contest(session, record, lossless, out, pruning_step(recipe), trades_accuracy(recipe))
    with session.ledger.spends(BUILDING):
        outcome = conclude(contest, out, force)
    session.journal.remove()
    return outcome


def measured_opening(session: Session) -> tuple[Session, Record, Lossless]:
    """The session with its baseline and its kernels, the record so far, and what lossless steps
    reach."""
    session.progress.stage("measuring the baseline")
    fresh_process.wait_for_imports()
    session = session.with_baseline()
    record = baseline_record(session, "tune", session.reference)
    with session.ledger.spends(BUILDING), session.time.building():
        variant = build(session, None, lossless=True)
    session.progress.stage("choosing kernels")
    session = session.with_kernels(variant.module)
    lossless = session.journal.kept(
        "lossless", Lossless, lambda: _measured(session, record, variant)
    )
    return session, record, lossless


def _measured(session: Session, record: Record, variant: Variant) -> Lossless:
    # Whether there is a search at all depends on it, so it is measured with patience.
    free, runtime = session.relative_latency(variant.module, attempts=ATTEMPTS)
    tried = (candidate("original", record.baseline, None), candidate("lossless", free, None))
    return Lossless(free, runtime, tried)


def _planned(session: Session, lossless: Lossless) -> Session:
    """The session with the plan of what is left of its time."""
    recipe, target, whole = session.recipe, session.job.target, session.reference.value_ms
    budget = budget_ms(target, session.reference, session.quiet_ms)
    # What is just enough may turn out not to be.
    more = target.fastest or (is_set(target) and lossless.latency.high_ms > SURE * budget)
    searches, trains = more and pruning_step(recipe) is not None, more and trades_accuracy(recipe)
    wanted = budget if trains and is_set(target) else lossless.latency.value_ms
    return session.with_plan(searches=searches, trains=trains, share=min(1.0, wanted / whole))


def _feasible(session: Session, lossless: Latency) -> str:
    return feasibility(session.job.target, session.reference, session.quiet_ms, lossless)


def pruning_step(recipe: Recipe) -> Step | None:
    """The step that a search decides on."""
    return next((s for s in recipe.adjust if s.name == "prune"), None)


def trades_accuracy(recipe: Recipe) -> bool:
    """True if some step costs accuracy."""
    return any(not ADJUSTERS[s.name].lossless for s in recipe.adjust)
