"""The main job: the most accurate variant that meets the target on this machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..checkpoints.artifact import check_writable
from ..configs.load import dump_recipe
from ..configs.recipe import Recipe, Step
from ..core.records import Candidate, Record
from .bench import Bench, open_bench
from .goal import budget_ms, summary, used, wanted
from .job import Job
from .pipeline import Run, Variant, build
from .results import Outcome, base_record, finished, verify_written, write
from .search import Search, candidate
from .talk import Talk


def tune(
    job: Job, recipe: Recipe, talk: Talk, out: Path, *, force: bool = False, dry_run: bool = False
) -> Outcome:
    """Tune `job.checkpoint` to its target and write the artifact to `out`.

    Raises the errors of core/errors.py; whatever happens, `out` is either complete or as it was.
    """
    if not dry_run:
        check_writable(out, force)
    bench = open_bench(job, recipe, talk)
    talk.stage("measuring the baseline")
    bench.measure_reference()
    record = base_record(bench, "tune", bench.reference)
    lossless = build(bench, None, lossless=True)
    talk.stage("choosing kernels")
    bench.choose_runtime(lossless.module)
    return _reach(bench, record, lossless, out, force, dry_run)


def _reach(
    bench: Bench, record: Record, lossless: Variant, out: Path, force: bool, dry_run: bool
) -> Outcome:
    target = bench.job.target
    free, bench.runtime = bench.latency_on_reference(lossless.module)
    tried = [
        candidate("original", record.baseline, bench.accuracy(bench.original), None),
        candidate("lossless", free, bench.accuracy(lossless.module), 0.0),
    ]
    budget = budget_ms(target, bench.reference) if wanted(target) else None
    bench.talk.note(
        f"baseline {record.baseline.value_ms:.3g} ms, lossless {free.value_ms:.3g} ms, "
        f"target {f'{budget:.3g} ms' if budget else 'none'}"
    )
    step = next((s for s in bench.recipe.adjust if s.name == "prune"), None)
    enough = budget is None or free.high_ms <= budget
    if dry_run:
        return Outcome(replace(record, candidates=tuple(tried), summary="dry run"), None)
    if enough or step is None:
        return _lossless(bench, record, tried, step, out, force)
    return _lossy(bench, record, tried, step, out, force)


def _lossless(
    bench: Bench,
    record: Record,
    tried: list[Candidate],
    step: Step | None,
    out: Path,
    force: bool,
) -> Outcome:
    """Only what costs no accuracy, unless the fresh process shows that it isn't enough."""
    variant = Run(bench, None, lossless=True).all()
    recipe = dump_recipe(bench.recipe)
    checked = verify_written(bench, out, variant, record, recipe)
    target = bench.job.target
    short = wanted(target) and used(target, checked) > 1.0
    if short and step is not None:
        return _lossy(bench, record, tried, step, out, force)
    tried[-1] = replace(tried[-1], chosen=True)
    record = finished(bench, record, variant, checked, tuple(tried))
    text = "lossless work is enough"
    if short:
        text = summary(record, checked.final.value_ms)
        text += "; the recipe has no step that trades accuracy for speed"
    elif target.ms is not None and record.baseline.high_ms <= target.ms:
        text = "the original already meets the target: only lossless work was done"
    elif not wanted(target):
        text = "no target was given: only lossless work was done"
    record = replace(record, summary=text, smallest_reachable_ms=checked.final.value_ms)
    write(bench, out, variant, record, recipe, force)
    return Outcome(record, out)


def _lossy(
    bench: Bench, record: Record, tried: list[Candidate], step: Step, out: Path, force: bool
) -> Outcome:
    search = Search.of(bench, step, tried[-1].latency)
    recipe = dump_recipe(bench.recipe)
    best, smallest = search.settle(record, out, recipe)
    variant = Run(bench, search.dropped(best.picks)).all()
    checked = verify_written(bench, out, variant, record, recipe)
    final = candidate("final", checked.final, bench.accuracy(variant.module), chosen=True)
    record = finished(bench, record, variant, checked, (*tried, *search.candidates, final))
    smallest = min(smallest, checked.final.value_ms)
    record = replace(record, smallest_reachable_ms=smallest, summary=summary(record, smallest))
    write(bench, out, variant, record, recipe, force)
    return Outcome(record, out)
