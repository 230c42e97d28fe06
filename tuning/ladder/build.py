"""The job of `ladder`: one search for all rungs, and the folder of a ladder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from ...checkpoints.ladders import RungSource, assemble_ladder, check_ladder_place
from ...configs.load import dump_recipe
from ...configs.recipe import Recipe
from ...core.errors import UsageError
from ...core.ladder_record import LadderRecord
from ...core.progress import Progress
from ...core.records import LeftAlone, Quality, Record, Target
from ...core.workspace import workspace
from ...profiling.machine import fingerprint
from ...reporting.ladder import ladder_reports
from ...reporting.ladder_facts import memory_warning
from .. import fresh_process
from ..job import Job
from ..schedule import SLACK
from ..session import Session, open_session
from ..stages import expected
from ..tune import measured_opening, pruning_step, trades_accuracy
from .cascades import worth_it
from .front import RungPoint, front_of
from .goals import RungGoals, goal_name
from .measuring import MeasuredRung, MeasuredRungs, RungsRequest, measure_rungs
from .rungs import NO_TIME, BuiltRung, RungBuilder

RESERVED, RESERVED_SECONDS = 0.1, 120.0  # of the limit, at most, to measure all rungs at the end
FIRST = 2.0  # times the time of a rung: the tables and the ranking come before the first one
MEASURING = "measuring all rungs at growing batch sizes"
CASCADE = "cascade"
NO_RUNGS = (
    "nothing in this recipe trades accuracy for speed, so there is nothing to make rungs of; give "
    "`--data`, or allow lossy steps with `--without-data`."
)


@dataclass(frozen=True)
class LadderOutcome:
    """`verdicts`: of the targets that the user named."""

    record: LadderRecord
    folder: Path
    verdicts: tuple[str, ...] = ()


def build_ladder(
    job: Job,
    recipe: Recipe,
    goals: RungGoals,
    progress: Progress,
    out: Path,
    *,
    force: bool = False,
    resume: bool = False,
) -> LadderOutcome:
    """Rungs of `job.checkpoint` for all `goals`, from one search, in the folder `out`.

    `limits.minutes` is for all of them together. `resume` goes on with an interrupted run of the
    same job. Raises the errors of core/errors.py; `out` is complete then, or as it was.
    """
    check_ladder_place(out, force)
    if not trades_accuracy(recipe):
        raise UsageError(NO_RUNGS)
    job = replace(job, target=replace(job.target, ms=None, speedup=None, fastest=False))
    searches = pruning_step(recipe) is not None
    progress.expect([*expected(recipe, search=searches), MEASURING], 60 * recipe.limits.minutes)
    with fresh_process.started_ahead(), workspace(out, parents=True) as aside:
        aside.new.mkdir()
        session = open_session(job, recipe, progress).with_journal(f"ladder {goals}", resume)
        builder = _built(session, goals, out, aside.new)
        outcome = _assembled(builder, goals, out, force)
    session.journal.remove()
    return outcome


def _built(session: Session, goals: RungGoals, out: Path, aside: Path) -> RungBuilder:
    """All rungs, the top first."""
    whole, recipe = session.time, session.recipe
    session, record, lossless = measured_opening(session)

    def share(weight: float, of: float) -> float:
        # At the end one more process opens all that there is.
        last = timing_seconds(recipe) + SLACK * whole.costs.verification
        return max(0.0, whole.left - last) * weight / of

    # Samples are sized by the whole of it, since all rungs are judged on the same ones.
    planned = session.with_plan(searches=pruning_step(recipe) is not None, trains=True)
    rest = goals.count + FIRST  # the top, and the first one's search
    session.progress.note(f"the time is divided among the top and {goals.count} more rungs")
    builder = RungBuilder(planned, record, lossless, out, aside)
    top = builder.top(share(1.0, rest))
    slowest = top.record.speedup.speedup if top.record.speedup else 1.0
    search = builder.open_search(share(FIRST, goals.count + 1.0))
    fastest = session.reference.value_ms / search.smallest().latency.value_ms if search else 2.0
    targets = goals.targets(session.job.target, slowest, fastest)
    if not targets:
        builder.left_out.append(LeftAlone("rungs", f"no variant is {1 / 0.95:.2f}x as fast"))
    chosen = affordable(targets, share(1.0, 1.0) / max(builder.rung_seconds, 1e-3))
    for target in targets:
        if target not in chosen:
            builder.leave_out(goal_name(target), NO_TIME)
    for place, target in enumerate(chosen):
        builder.rung(target, share(1.0, len(chosen) - place))
    return builder


def affordable(targets: Sequence[Target], most: float) -> list[Target]:
    """At most so many, evenly picked: the hardest in any case, since it holds the most load."""
    count = min(len(targets), max(1, int(most)))
    last = len(targets) - 1
    return [targets[last - round(i * len(targets) / count)] for i in reversed(range(count))]


def _assembled(builder: RungBuilder, goals: RungGoals, out: Path, force: bool) -> LadderOutcome:
    """Measure all rungs together, keep those on the front, and write the folder."""
    session, batch = builder.session, builder.session.job.target.batch
    session.progress.stage(MEASURING)
    built, measured, rows = _on_front(builder, batch)
    medians = [_samples_at(row, batch) for row in measured.rungs]
    cascades = worth_it(measured.cascades, medians)
    if not cascades and len(built) > 1:
        why = (
            measured.no_cascade
            or "none is worth it: either nothing has to go up, or so much that the top is faster"
        )
        rows.append(LeftAlone(CASCADE, why))
    for row in rows:
        session.progress.note(f"`{row.what}` is left out: {row.reason}")
    first = built[0].record
    record = assemble_ladder(
        out,
        [_source(rung, row, first) for rung, row in zip(built, measured.rungs, strict=True)],
        fingerprint(session.device),
        metric=first.quality.metric if first.quality and first.quality.known else None,
        cascades=cascades,
        version=first.version,
        force=force,
        move=True,
        facts={
            "source": first.source,
            "batch": batch,
            "memory_bytes": measured.memory_bytes,
            "original_memory_bytes": measured.original_memory_bytes,
            "left_out": (*builder.left_out, *rows),
            "seconds": round(session.seconds, 2),
        },
        reports=ladder_reports,
    )
    if warning := memory_warning(record):
        session.progress.note(f"warning: {warning}")
    found = [rung.record.verdict for rung in builder.built[1:]]
    found += ["missed" for _ in builder.missed]
    return LadderOutcome(record, out, tuple(found) if goals.named else ())


def timing_seconds(recipe: Recipe) -> float:
    """Of the table of latencies."""
    return min(RESERVED * 60.0 * recipe.limits.minutes, RESERVED_SECONDS)


def _on_front(
    builder: RungBuilder, batch: int
) -> tuple[list[BuiltRung], MeasuredRungs, list[LeftAlone]]:
    """The rungs that stay, what was measured of them, and why others do not."""
    session, built = builder.session, builder.built
    recipe, seconds = dump_recipe(session.recipe), timing_seconds(session.recipe)
    request = RungsRequest(session.job, _folders(built), recipe, seconds)
    measured = measure_rungs(request)
    points = [
        RungPoint(rung.name, _samples_at(row, batch), _score(rung, built[0]))
        for rung, row in zip(built, measured.rungs, strict=True)
    ]
    kept, reasons = front_of(points)
    rows = [LeftAlone(built[i].name, reason) for i, reason in sorted(reasons.items())]
    stay = [built[i] for i in kept]
    # Memory is shared with the rungs above, and cascades are between those that stay.
    if kept != list(range(len(built))):
        again = measure_rungs(replace(request, folders=_folders(stay), seconds=0.0))
        timed = [
            replace(row, batches=measured.rungs[i].batches)
            for i, row in zip(kept, again.rungs, strict=True)
        ]
        measured = replace(again, rungs=tuple(timed))
    return stay, measured, rows


def _folders(built: Sequence[BuiltRung]) -> tuple[str, ...]:
    return tuple(str(rung.folder) for rung in built)


def _samples_at(row: MeasuredRung, batch: int) -> float:
    """The median (ms) at the batch that the rungs were tuned for."""
    return median(next(t.samples_ms for t in row.batches if t.batch == batch))


def accuracy_of(quality: Quality | None, top: Quality | None) -> float | None:
    """A rung's metric on the examples that the top was judged on. Where time allowed others, the
    original's there less what the rung loses on its own; None without labels."""
    if quality is None or not quality.known:
        return None
    same = top is None or top.examples == quality.examples
    if same or top is None or top.baseline is None or quality.drop is None:
        return quality.final
    return top.baseline - quality.drop


def _score(rung: BuiltRung, top: BuiltRung) -> float:
    """Accuracy by the examples that decide, or agreement without labels."""
    quality, first = rung.record.quality, top.record.quality
    if quality is not None and quality.judged and first is not None and first.judged:
        return first.judged.baseline - quality.judged.drop
    accuracy = accuracy_of(quality, first)
    if accuracy is not None:
        return accuracy
    return _agreement(quality)


def _agreement(quality: Quality | None) -> float:
    """With the original; what was not judged computes the same."""
    return 1.0 if quality is None else quality.agreement or 0.0


def _source(rung: BuiltRung, row: MeasuredRung, top: Record) -> RungSource:
    record, quality = rung.record, rung.record.quality
    target = record.target
    return RungSource(
        artifact=rung.folder,
        name=rung.name,
        agreement=_agreement(quality),
        memory_bytes=row.memory_bytes,
        samples_ms={timed.batch: timed.samples_ms for timed in row.batches},
        accuracy=accuracy_of(quality, top.quality),
        target=target,
        verdict=record.verdict,
        speedup=record.speedup.speedup if record.speedup else None,
    )
