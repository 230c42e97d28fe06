"""Run a recipe exactly as it is written: fixed settings, no search."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..checkpoints.artifact import check_writable
from ..configs.recipe import Recipe
from ..core.progress import Progress
from ..core.records import Record
from ..search.target import is_set
from . import fresh_process
from .compare_backends import under_fastest
from .delivery import (
    VERDICT_SECONDS,
    Outcome,
    baseline_record,
    final_record,
    sealed,
    staged,
    verified,
)
from .job import Job
from .ledger import BUILDING, MEASURING
from .session import open_session
from .stages import OPENING, expected
from .steps import StepRunner

FIGURE_SECONDS = 2.0  # of measuring, where no target asks for a verdict


def apply_recipe(
    job: Job,
    recipe: Recipe,
    progress: Progress,
    out: Path,
    *,
    force: bool = False,
    dry_run: bool = False,
    resume: bool = False,
) -> Outcome:
    """Apply every step of `recipe`, verify the artifact in a fresh process, write it to `out`.

    `resume`: as in `tune`.
    """
    if not dry_run:
        check_writable(out, force)
    progress.expect(OPENING if dry_run else expected(recipe), 60 * recipe.limits.minutes)
    with fresh_process.started_ahead(not dry_run):
        return _applied(job, recipe, progress, out, force, dry_run, resume)


def _applied(
    job: Job, recipe: Recipe, progress: Progress, out: Path,
    force: bool, dry_run: bool, resume: bool,
) -> Outcome:  # fmt: skip
    session = open_session(job, recipe, progress)
    if not dry_run:
        session = session.with_journal("apply", resume)
    progress.stage("measuring the baseline")
    fresh_process.wait_for_imports()
    session = session.with_baseline()
    record = baseline_record(session, "apply", session.reference)
    if dry_run:
        return Outcome(replace(record, summary="dry run"), None)
    progress.stage("choosing kernels")
    session = session.with_kernels(session.original)
    with session.ledger.spends(BUILDING):
        session = session.with_plan(trains=True)
        variant = StepRunner(session, None, as_written=True).all()
    with session.ledger.spends(MEASURING):
        variant = under_fastest(session, variant)
    with staged(session, variant, record, out) as artifact:
        seconds = VERDICT_SECONDS if is_set(session.job.target) else FIGURE_SECONDS
        artifact, variant, checked = verified(
            session, artifact, variant, record, seconds, reports=True
        )
        final = final_record(session, record, variant, checked, ())
        final = replace(final, summary=_summary(final))
        outcome = sealed(session, artifact, variant, final, out, force)
    session.journal.remove()
    return outcome


def _summary(record: Record) -> str:
    same = (record.parameters_before, record.macs_before) == (
        record.parameters_after,
        record.macs_after,
    )
    if not any(s.adjuster not in ("scale", "finetune") for s in record.steps if s.status == "kept"):
        if same:
            return (
                "these steps change weights only: the same operations run, so they change no "
                f"latency; any difference comes from the runtime (`{record.runtime_used}`)"
            )
    return "the recipe was applied as written"
