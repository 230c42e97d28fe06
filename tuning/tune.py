"""The main job: the most accurate variant that meets the target on this machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from torch.fx import GraphModule

from ..adjusters.prune import Dropped, Pruner
from ..checkpoints.artifact import check_writable
from ..configs.load import dump_recipe
from ..configs.recipe import Recipe, Step
from ..core.records import Candidate, Latency, Record
from ..graph.capture import clone
from ..profiling.layers import profile_layers
from .bench import Bench, open_bench
from .finetuning import reestimate_batch_norm
from .job import Job
from .multiples import rewarded_multiple
from .pipeline import Run, Variant, build
from .results import Outcome, base_record, finished, verify_written, write
from .solver import Bisection
from .talk import Talk

ROUNDS = 4
BN_BATCHES = 10


@dataclass
class Search:
    """Candidates of one pruning step, measured as they are asked for."""

    bench: Bench
    step: Step
    pruner: Pruner
    candidates: list[Candidate]

    @classmethod
    def of(cls, bench: Bench, step: Step) -> Search:
        """Scores on the model as it stands when the recipe reaches the pruning step."""
        bench.talk.stage("ranking channel groups")
        costs = {
            c.name: float(c.macs) for c in profile_layers(bench.original, bench.inputs, repeats=2)
        }
        multiple = rewarded_multiple(bench.device)
        pruner = Pruner.of(bench.context(bench.original), step.settings, costs, multiple)
        return cls(bench, step, pruner, [])

    def dropped(self, level: float) -> Callable[[GraphModule], Dropped]:
        return lambda module: self.pruner.at_level(level)

    def measure(self, level: float) -> Latency:
        bench = self.bench
        bench.talk.note(f"trying level {level:.2f}")
        variant = build(bench, self.dropped(level))
        latency = bench.realised_latency(variant.module)
        if bench.data is not None:
            reestimate_batch_norm(variant.module, bench.data.train, BN_BATCHES, bench.device)
        accuracy = bench.accuracy(variant.module)
        self.candidates.append(candidate(f"level {level:.3f}", latency, accuracy, level))
        return latency


def tune(
    job: Job,
    recipe: Recipe,
    talk: Talk,
    out: Path,
    *,
    force: bool = False,
    dry_run: bool = False,
    speedup: float | None = None,
) -> Outcome:
    """Tune `job.checkpoint` to its target and write the artifact to `out`.

    `speedup`: the target is the baseline's measured latency divided by it. Raises the errors of
    core/errors.py; whatever happens, `out` is either complete or as it was.
    """
    if not dry_run:
        check_writable(out, force)
    bench = open_bench(job, recipe, talk)
    talk.stage("measuring the baseline")
    baseline = bench.latency(bench.source.module, 3.0)
    record = base_record(bench, "tune", baseline)
    lossless = build(bench, None, lossless=True)
    talk.stage("choosing kernels")
    bench.choose_runtime(lossless.module)
    if speedup is not None:
        checked = verify_written(bench, out, lossless, record, dump_recipe(recipe))
        record = replace(record, baseline=checked.baseline)
        bench.job = replace(job, target=replace(job.target, ms=_share(checked.baseline, speedup)))
        record = replace(record, target=bench.job.target)
    return _reach(bench, record, lossless, out, force, dry_run)


def _share(baseline: Latency, speedup: float) -> float:
    """The target (ms) of a wanted speed-up, 2 % under it: the baseline drifts between processes."""
    return float(f"{0.98 * baseline.low_ms / speedup:.4g}")


def _reach(
    bench: Bench, record: Record, lossless: Variant, out: Path, force: bool, dry_run: bool
) -> Outcome:
    target = bench.job.target.ms
    free = bench.realised_latency(lossless.module)
    tried = [
        candidate("original", record.baseline, bench.accuracy(bench.original), None),
        candidate("lossless", free, bench.accuracy(lossless.module), 0.0),
    ]
    bench.talk.note(
        f"baseline {record.baseline.value_ms:.3g} ms, lossless {free.value_ms:.3g} ms, "
        f"target {f'{target:.3g} ms' if target else 'none'}"
    )
    step = next((s for s in bench.recipe.adjust if s.name == "prune"), None)
    enough = target is None or free.high_ms <= target
    if dry_run:
        return Outcome(replace(record, candidates=tuple(tried), summary="dry run"), None)
    if enough or step is None:
        return _lossless(bench, record, tried, out, force, enough)
    return _lossy(bench, record, tried, step, out, force)


def _lossless(
    bench: Bench, record: Record, tried: list[Candidate], out: Path, force: bool, enough: bool
) -> Outcome:
    variant = Run(bench, None, lossless=True).all()
    recipe = dump_recipe(bench.recipe)
    checked = verify_written(bench, out, variant, record, recipe)
    target = bench.job.target.ms
    step = next((s for s in bench.recipe.adjust if s.name == "prune"), None)
    if enough and step is not None and target is not None and checked.final.high_ms > target:
        # Only the fresh process counts: it is slower than this one, so there is work left.
        return _lossy(bench, record, tried, step, out, force)
    tried[-1] = replace(tried[-1], chosen=True)
    record = finished(bench, record, variant, checked, tuple(tried))
    if enough:
        why = "lossless work is enough"
        if bench.job.target.ms is not None and record.baseline.high_ms <= bench.job.target.ms:
            why = "the original already meets the target: only lossless work was done"
    else:
        why = "the recipe has no step that trades accuracy for speed"
    record = replace(record, summary=why, smallest_reachable_ms=checked.final.value_ms)
    write(bench, out, variant, record, recipe, force)
    return Outcome(record, out)


def _lossy(
    bench: Bench, record: Record, tried: list[Candidate], step: Step, out: Path, force: bool
) -> Outcome:
    search = Search.of(bench, step)
    solver = Bisection(search.measure)
    recipe = dump_recipe(bench.recipe)
    level, smallest = _settle(bench, record, search, solver, out, recipe)
    variant = Run(bench, search.dropped(level)).all()
    checked = verify_written(bench, out, variant, record, recipe)
    final = candidate("final", checked.final, bench.accuracy(variant.module), level, chosen=True)
    record = finished(bench, record, variant, checked, (*tried, *search.candidates, final))
    record = replace(record, smallest_reachable_ms=smallest, summary=_summary(record, smallest))
    write(bench, out, variant, record, recipe, force)
    return Outcome(record, out)


def _settle(
    bench: Bench, record: Record, search: Search, solver: Bisection, out: Path, recipe: str
) -> tuple[float, float]:
    """The level to train: the lowest whose artifact meets the target in a fresh process.

    The internal budget is corrected by what the fresh process measures, then solved again.
    """
    target = bench.job.target.ms
    assert target is not None
    bench.talk.stage("searching")
    budget = target
    level = 1.0
    for _ in range(ROUNDS):
        found = solver.solve(budget)
        if found is None:
            level = 1.0
            break
        level = found.level
        trial = build(bench, search.dropped(level))
        checked = verify_written(
            bench, out, Variant(clone(trial.module), trial.edits), record, recipe, 5.0
        )
        if checked.final.high_ms <= 0.98 * target:
            break
        budget = min(budget, found.latency.high_ms) * 0.97 * target / checked.final.high_ms
    fastest = min(t.latency.value_ms for t in solver.trials)
    return level, fastest


def candidate(
    label: str, latency: Latency, accuracy: float | None, level: float | None, chosen: bool = False
) -> Candidate:
    return Candidate(
        label, latency.value_ms, latency.low_ms, latency.high_ms, accuracy, level, chosen
    )


def _summary(record: Record, smallest: float) -> str:
    target, final = record.target.ms, record.final
    assert target is not None and final is not None
    if record.verdict == "met":
        return f"{final.value_ms:.3g} ms meets the target of {target:.3g} ms"
    gap = final.high_ms - target
    if record.verdict == "missed":
        return (
            f"the target of {target:.3g} ms is missed by {gap:.3g} ms; the smallest latency "
            f"reachable with this recipe is about {min(smallest, final.value_ms):.3g} ms"
        )
    return (
        f"{final.value_ms:.3g} ms can't be told from the target of {target:.3g} ms on this machine"
    )
