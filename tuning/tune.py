"""The main job: the most accurate variant that meets the target on this machine."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from ..adjusters.registry import ADJUSTERS
from ..checkpoints.artifact import check_writable
from ..configs.load import dump_recipe
from ..configs.recipe import Recipe, Step
from ..core.errors import MeasureError, UsageError
from ..core.progress import Progress
from ..core.records import Candidate, Latency, Record, Verification
from ..search.meet_target import settle
from ..search.number_formats import halves, integers
from ..search.search import Search
from ..search.target import budget_ms, feasibility, summary, used, used_by_original, wanted
from ..search.trials import Trial, candidate
from ..search.variant import Variant
from ..search.within_limit import within
from .candidates import build
from .compare_backends import compile_where_faster
from .delivery import Outcome, base_record, finished, verify_written, write
from .failing import searched
from .job import Job
from .session import Bench, open_bench
from .stages import OPENING, expected
from .steps import Run

ATTEMPTS = 3


@dataclass(frozen=True)
class Lossless:
    """What lossless work brings, and the first rows of what was tried."""

    latency: Latency
    runtime: str
    tried: tuple[Candidate, ...]


@dataclass(frozen=True)
class Choice:
    """What the search settled on."""

    trial: Trial
    smallest_ms: float


@dataclass(frozen=True)
class Choices:
    """What the search thinks to be within the accuracy limit, the fastest first."""

    trials: list[Trial]


def tune(
    job: Job,
    recipe: Recipe,
    talk: Progress,
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
    stages = OPENING if dry_run else expected(recipe, search=_prunes(recipe) is not None)
    talk.expect(stages, 60 * recipe.limits.minutes)
    bench = open_bench(job, recipe, talk)
    if not dry_run:
        bench.keep_journal("tune", resume)
    talk.stage("measuring the baseline")
    bench.measure_reference()
    record = base_record(bench, "tune", bench.reference)
    lossless = build(bench, None, lossless=True)
    talk.stage("choosing kernels")
    bench.choose_runtime(lossless.module)
    outcome = _reach(bench, record, lossless, out, force, dry_run)
    bench.journal.remove()
    return outcome


def _reach(
    bench: Bench, record: Record, lossless: Variant, out: Path, force: bool, dry_run: bool
) -> Outcome:
    target = bench.job.target

    def measured() -> Lossless:
        free, runtime = bench.latency_on_reference(lossless.module)
        return Lossless(free, runtime, (
            candidate("original", record.baseline, bench.accuracy(bench.original)),
            candidate("lossless", free, bench.accuracy(lossless.module)),
        ))  # fmt: skip

    found = bench.journal.kept("lossless", Lossless, measured)
    free, bench.runtime, tried = found.latency, bench.trusted(found.runtime), list(found.tried)
    budget = budget_ms(target, bench.reference) if wanted(target) else None
    step = _prunes(bench.recipe)
    if target.fastest and bench.data is None:
        raise UsageError("`--fastest` keeps to an accuracy limit, so it needs `data`.")
    if dry_run:
        bench.talk.note(feasibility(target, bench.reference, free))
        return Outcome(replace(record, candidates=tuple(tried), summary="dry run"), None)
    if target.fastest and step is not None:
        return _fastest(bench, record, tried, step, out, force)
    enough = budget is not None and free.high_ms <= budget
    if step is None and (target.fastest or wanted(target)) and not enough and _trades(bench.recipe):
        return _whole(bench, record, tried, out, force)
    if budget is None or step is None or enough:
        return _lossless(bench, record, tried, step, out, force)
    return _lossy(bench, record, tried, step, out, force)


def _prunes(recipe: Recipe) -> Step | None:
    return next((s for s in recipe.adjust if s.name == "prune"), None)


def _lossless(
    bench: Bench,
    record: Record,
    tried: list[Candidate],
    step: Step | None,
    out: Path,
    force: bool,
) -> Outcome:
    """Only what costs no accuracy, unless the fresh process shows that it isn't enough."""
    bench.talk.note(feasibility(bench.job.target, bench.reference, tried[-1].latency))
    variant = Run(bench, None, lossless=True).all()
    variant, checked = _not_slower(bench, variant, record, out)
    target = bench.job.target
    short = wanted(target) and used(target, checked) > 1.0
    if short and step is not None:
        return _lossy(bench, record, tried, step, out, force)
    accuracy = checked.quality.final if checked.quality else None
    tried[-1] = candidate("lossless", checked.final, accuracy, chosen=True)
    record = finished(bench, record, variant, checked, tuple(tried))
    text = "lossless work is enough"
    if short:
        text = summary(record, checked.final.value_ms)
        nothing = "nothing in this recipe can trade accuracy for speed on this model"
        text += f"; {next(iter(bench.failed.values()), nothing)}"
    elif target.ms is not None and record.baseline.high_ms <= target.ms:
        text = "the original already meets the target: only lossless work was done"
    elif target.fastest:
        text = "nothing faster than lossless work keeps within the accuracy limit"
    elif not wanted(target):
        text = "no target was given: only lossless work was done"
    record = replace(record, summary=text, smallest_reachable_ms=checked.final.value_ms)
    write(bench, out, variant, record, dump_recipe(bench.recipe), force)
    return Outcome(record, out)


def _trades(recipe: Recipe) -> bool:
    return any(not ADJUSTERS[s.name].lossless for s in recipe.adjust)


def _whole(bench: Bench, record: Record, tried: list[Candidate], out: Path, force: bool) -> Outcome:
    """A recipe with nothing to search for: every step is tried once, and kept where it helps."""
    variant = Run(bench, None).all()
    record, variant = _done(bench, record, variant, tried, out)
    assert record.final is not None and record.speedup is not None
    smallest = record.final.value_ms
    text = f"{record.speedup.speedup:.2f}x as fast with the whole recipe"
    if wanted(bench.job.target):
        text = summary(record, smallest)
    record = replace(record, smallest_reachable_ms=smallest, summary=text)
    write(bench, out, variant, record, dump_recipe(bench.recipe), force)
    return Outcome(record, out)


def _lossy(
    bench: Bench, record: Record, tried: list[Candidate], step: Step, out: Path, force: bool
) -> Outcome:
    if bench.runtime not in bench.runtimes:  # lossless work ended compiled
        bench.runtime = bench.runtimes[0]
    bench.compared = ()
    search = searched(bench, step, lambda: Search.of(bench, step, tried[-1].latency))
    if search is None or not search.problem.choices:
        return _unpruned(bench, record, tried, out, force)
    choice = searched(
        bench,
        step,
        lambda: bench.journal.kept("choice", Choice, lambda: Choice(*settle(search, record, out))),
    )
    if choice is None:
        return _unpruned(bench, record, tried, out, force)
    bench.runtime, smallest = bench.trusted(choice.trial.runtime), choice.smallest_ms
    variant = Run(bench, search.chosen(choice.trial)).all()
    record, variant = _done(bench, record, variant, [*tried, *search.candidates], out)
    assert record.final is not None
    smallest = min(smallest, record.final.value_ms)
    record = replace(record, smallest_reachable_ms=smallest, summary=summary(record, smallest))
    write(bench, out, variant, record, dump_recipe(bench.recipe), force)
    return Outcome(record, out)


def _unpruned(
    bench: Bench, record: Record, tried: list[Candidate], out: Path, force: bool
) -> Outcome:
    """Nothing can be removed: what is left are number formats, each kept where it helps."""
    go = _whole if halves(bench.recipe) or integers(bench.recipe) else partial(_lossless, step=None)
    return go(bench, record, tried, out=out, force=force)


def _fastest(
    bench: Bench, record: Record, tried: list[Candidate], step: Step, out: Path, force: bool
) -> Outcome:
    """The dual problem: the least latency whose accuracy stays within `limits.max_drop`.

    The search judges by held-out training data; the evaluation data has the last word.
    """
    data, limit = bench.data, bench.recipe.limits.max_drop
    assert data is not None
    search = searched(bench, step, lambda: Search.of(bench, step, tried[-1].latency))
    if search is None or not search.problem.choices:
        return _unpruned(bench, record, tried, out, force)
    before, _ = data.accuracy(bench.original, bench.device)
    found = searched(
        bench,
        step,
        lambda: bench.journal.kept(
            "choices", Choices, lambda: Choices(within(search, search.start - limit)[:ATTEMPTS])
        ),
    )
    if found is None:
        return _unpruned(bench, record, tried, out, force)
    for trial in found.trials:
        bench.runtime = bench.trusted(trial.runtime)
        variant = Run(bench, search.chosen(trial)).all()
        if before - data.accuracy(variant.module, bench.device)[0] <= limit:
            break
    else:
        bench.runtime, bench.compared = bench.runtimes[0], ()
        return _lossless(bench, record, tried, step, out, force)
    record, variant = _done(bench, record, variant, [*tried, *search.candidates], out)
    assert record.speedup is not None
    text = f"{record.speedup.speedup:.2f}x as fast within an accuracy drop of {limit:g}"
    record = replace(record, summary=text)
    write(bench, out, variant, record, dump_recipe(bench.recipe), force)
    return Outcome(record, out)


def _done(
    bench: Bench, record: Record, variant: Variant, tried: list[Candidate], out: Path
) -> tuple[Record, Variant]:
    variant, checked = _not_slower(bench, variant, record, out)
    accuracy = checked.quality.final if checked.quality else None
    final = candidate("final", checked.final, accuracy, chosen=True)
    return finished(bench, record, variant, checked, (*tried, final)), variant


def _not_slower(
    bench: Bench, variant: Variant, record: Record, out: Path
) -> tuple[Variant, Verification]:
    """The variant as a fresh process measures it, or lossless work where that is slower than the
    original. Raises MeasureError where both are: no such result is ever written."""
    compile_where_faster(bench, variant.module)
    checked = verify_written(bench, out, variant, record)
    if checked.comparison.finding != "slower":
        return variant, checked
    bench.talk.note("measured slower than the original: going back to lossless work")
    bench.choose_runtime(bench.original)
    bench.compared = ()
    variant = Run(bench, None, lossless=True).all()
    checked = verify_written(bench, out, variant, record)
    if checked.comparison.finding == "slower":
        meets = wanted(bench.job.target) and used_by_original(bench.job.target, checked) <= 1.0
        raise MeasureError(
            "every variant measured slower than the original on this machine, so nothing was "
            f"written; the original takes {checked.baseline.value_ms:.3g} ms"
            + (", which meets the target as it is." if meets else ".")
        )
    return variant, checked
