"""Run a recipe exactly as it is written: fixed settings, no search."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..checkpoints.artifact import check_writable
from ..configs.load import dump_recipe
from ..configs.recipe import Recipe
from ..core.progress import Progress
from ..core.records import Record
from .compare_backends import compile_where_faster
from .delivery import Outcome, base_record, finished, verify_written, write
from .job import Job
from .session import open_bench
from .stages import OPENING, expected
from .steps import Run


def apply_recipe(
    job: Job,
    recipe: Recipe,
    talk: Progress,
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
    talk.expect(OPENING if dry_run else expected(recipe), 60 * recipe.limits.minutes)
    bench = open_bench(job, recipe, talk)
    if not dry_run:
        bench.keep_journal("apply", resume)
    talk.stage("measuring the baseline")
    bench.measure_reference()
    record = base_record(bench, "apply", bench.reference)
    if dry_run:
        return Outcome(replace(record, summary="dry run"), None)
    talk.stage("choosing kernels")
    bench.choose_runtime(bench.original)
    variant = Run(bench, None, as_written=True).all()
    text = dump_recipe(recipe)
    compile_where_faster(bench, variant.module)
    checked = verify_written(bench, out, variant, record)
    record = finished(bench, record, variant, checked, ())
    record = replace(record, summary=_summary(record))
    write(bench, out, variant, record, text, force)
    bench.journal.remove()
    return Outcome(record, out)


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
