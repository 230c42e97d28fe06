"""A written artifact measured and evaluated again, as a CI job does before it ships it."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

from torch import nn

from ..backends.agreement import same_answers
from ..backends.readiness import runner
from ..backends.registry import library_version
from ..checkpoints.artifact import read_artifact
from ..checkpoints.manifest import read_manifest
from ..checkpoints.samples import at_batch, draw_inputs
from ..configs.recipe import Recipe
from ..core.checks import Case, Check
from ..core.errors import ArtifactError, MeasureError, UsageError, first_line
from ..core.model_io import Batches, Inputs
from ..core.progress import Progress
from ..core.records import Comparison, Latency, Machine, Quality, Record, Target
from ..core.records_json import from_json
from ..core.runtimes import DEFAULT_RUNTIME
from ..data.load import Data, load_data
from ..profiling.accuracy import evaluate
from ..profiling.closeness import plain_outputs
from ..profiling.machine import fingerprint
from ..profiling.regression import against as compared
from ..profiling.statistics import percentile_interval, samples_needed, verdict
from ..profiling.timer import measure
from ..reporting.facts import closeness
from ..runtime.load import Opened, open_artifact
from .job import prepare_machine
from .probes import probes

RUNS, ROUNDS = 5, 2  # a second round where the first leaves it open
CLEAR = 3  # runs that each say the same are enough, unless they are compared with a record
_UNKNOWN = Comparison(1.0, 0.0, float("inf"), "no significant change")


@dataclass(frozen=True)
class CheckRequest:
    """`recipe` names the data; `max_drop` None leaves accuracy unlimited."""

    folder: Path
    target: Target
    max_drop: float | None = None
    recipe: Recipe | None = None
    against: Record | None = None
    runtime: str | None = None
    trust_compiled: bool = False


def stored(folder: Path) -> Record:
    """The record in an artifact's manifest. Raises ArtifactError."""
    return from_json(Record, read_manifest(folder).get("record"), f"{folder}: record")


def elsewhere(then: Machine, now: Machine) -> str:
    """Differences that make latencies of the two incomparable; empty if there are none.

    Torch, Python and kernels may differ: a comparison may be about them.
    """
    names = ("cpu", "isa", "cores", "threads", "device")
    changed = [(n, getattr(then, n), getattr(now, n)) for n in names]
    return ", ".join(f"{n} {a} then, {b} now" for n, a, b in changed if a != b)


def target_of(record: Record, here: Machine) -> Target:
    """The target in ms that an artifact was made for, as the machine `here` can check it.

    Raises UsageError for a ratio to an original that was measured on another machine.
    """
    target = record.target
    if target.ms is not None or target.speedup is None:
        return replace(target, speedup=None, fastest=False)
    if changed := elsewhere(record.machine, here):
        raise UsageError(
            f"the artifact was made to be {target.speedup:g}x as fast as its original, measured "
            f"elsewhere ({changed}); name what it must reach here with `--target-ms`."
        )
    return replace(target, ms=record.baseline.value_ms / target.speedup, speedup=None)


def check(request: CheckRequest, progress: Progress) -> Check:
    """Integrity, latency, accuracy and change since a record; a case each.

    Raises the errors of core/errors.py where one can't be found out.
    """
    # An artifact made for the compiler also runs where there is none.
    prepare_machine(replace(request.target, runtime=DEFAULT_RUNTIME), 0)
    record = stored(request.folder)
    cases, started = [], time.monotonic()
    progress.stage("loading")
    artifact = read_artifact(request.folder, verify=True)
    cases.append(_timed(Case("artifact", "passed", "hash and stored sample fit"), started))
    ready = open_artifact(
        artifact,
        runtime=request.runtime,
        device=request.target.device,
        trust_compiled=request.trust_compiled,
    )
    module = ready.module
    batch = request.target.batch
    specs = at_batch(artifact.manifest["inputs"], batch)
    inputs = draw_inputs(specs, 0).map(lambda x: x.to(request.target.device))
    _check_runs(request.folder, module, inputs)
    cases.append(_outputs_case(ready, inputs, progress))
    started = time.monotonic()
    progress.stage("measuring")
    least = RUNS if request.against is not None else CLEAR
    runs, latency = _measured(module, inputs, request.target, least)
    cases.append(_timed(_latency_case(request.target, latency), started))
    change = None
    if request.against is not None:
        case, change = regression(request.against, runs, request.target)
        cases.append(case)
    started = time.monotonic()
    case, quality = _accuracy(request, record, ready, specs, progress)
    cases.append(_timed(case, started))
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    machine = fingerprint(request.target.device)
    return Check(str(request.folder), now, version("modelspeed"), machine, request.target,
                 tuple(cases), latency, quality, change)  # fmt: skip


def _outputs_case(ready: Opened, inputs: Inputs, progress: Progress) -> Case:
    """Compare what runs here with the stored program's outputs; `load` warns of the same."""
    refused = [n for n in ready.notices if n.code in ("runtime_differs", "runtime_fails")]
    for notice in ready.notices:
        progress.note(f"{notice.seen} {notice.remedy}")
    if refused:
        return Case("outputs", "failed", refused[0].seen, 1)
    outputs = plain_outputs(ready.graph, probes(ready.graph, inputs))
    try:
        match = same_answers(ready.module, outputs, ready.runtime)
    except MeasureError as error:
        return Case("outputs", "failed", str(error), 1)
    by = f"`{ready.runtime}` {library_version(ready.runtime)}".rstrip()
    return Case("outputs", "passed", f"{by} gives them {closeness(match)}")


def _check_runs(folder: Path, module: nn.Module, inputs: Inputs) -> None:
    """A stored program takes the batch sizes that it was exported for, and may be damaged."""
    try:
        runner(module, inputs)()
    except Exception as error:
        shapes = [list(x.shape) for x in inputs]
        raise ArtifactError(
            f"`{folder}` does not run on inputs {shapes}: {first_line(error)}"
        ) from error


def _timed(case: Case, started: float) -> Case:
    return replace(case, seconds=round(time.monotonic() - started, 2))


def _measured(
    module: nn.Module, inputs: Inputs, target: Target, least: int
) -> tuple[list[Latency], Latency]:
    runs: list[Latency] = []
    for _ in range(ROUNDS * RUNS):
        seconds = 2.0 if samples_needed(target.percentile) < 100 else 20.0
        runs.append(measure(runner(module, inputs), percentile=target.percentile,
                            max_seconds=seconds, min_seconds=0.3,
                            device=target.device, batch=target.batch))  # fmt: skip
        if _is_clear(runs, target, least):
            break
    samples = tuple(chain(*(run.samples_ms for run in runs)))
    interval = percentile_interval(samples, target.percentile)
    notices = {n.code: n for run in reversed(runs) for n in run.notices}
    return runs, Latency(target.percentile, *interval, samples, tuple(notices.values()))


def _is_clear(runs: list[Latency], target: Target, least: int) -> bool:
    """True if all runs are on the same side of the target, or a round of them together is.

    That three in a row err on the same side is as good as impossible; looking at their joint
    interval after each would not be.
    """
    said = {verdict(target, run, _UNKNOWN) for run in runs}
    if len(runs) >= least and len(said) == 1 and "inconclusive" not in said:
        return True
    if len(runs) != RUNS:
        return False
    interval = percentile_interval(list(chain(*(r.samples_ms for r in runs))), target.percentile)
    whole = Latency(target.percentile, *interval)
    return verdict(target, whole, _UNKNOWN) != "inconclusive"


def _latency_case(target: Target, latency: Latency) -> Case:
    text = (
        f"p{target.percentile:g} is {latency.value_ms:.3g} ms "
        f"({latency.low_ms:.3g} to {latency.high_ms:.3g})"
    )
    if target.ms is None:
        return Case("latency", "skipped", f"{text}; there is no target, name one: `--target-ms`")
    text += f", the target {target.ms:.3g} ms"
    reached = verdict(target, latency, _UNKNOWN)
    if reached == "met":
        return Case("latency", "passed", text)
    if reached == "missed":
        return Case("latency", "failed", text, 3)
    return Case("latency", "inconclusive", f"{text}: it lies within the interval", 5)


def regression(
    record: Record, runs: list[Latency], target: Target
) -> tuple[Case, Comparison | None]:
    """Test if this measured slower than `record`, beyond the machine's own drift."""
    before = record.final or record.baseline
    changed = elsewhere(record.machine, fingerprint(target.device))
    if record.target.batch != target.batch:
        changed = f"batch {record.target.batch} then, {target.batch} now"
    if changed:
        text = f"the record does not compare: {changed}"
        return Case("regression", "inconclusive", text, 5), None
    if not before.samples_ms:
        raise ArtifactError(f"the record of `{record.source}` holds no samples to compare with.")
    change, margin = compared(
        before.samples_ms, [run.samples_ms for run in runs], target.percentile
    )
    text = (
        f"{change.speedup:.3f}x as fast as the record ({change.low:.3f} to {change.high:.3f}): "
        f"{change.finding}; repeated measurements here tell changes above {margin:.1%} apart"
    )
    slower = change.finding == "slower"
    return Case("regression", "failed" if slower else "passed", text, 3 if slower else 0), change


def _reported(data: Data, record: Record) -> Batches:
    """The examples that the record's figures are of: all, or the half that reported."""
    halved = record.quality is not None and record.quality.halved
    whole: Batches = data.eval if data.eval is not None else ()
    return data.reported if halved else whole


def _accuracy(
    request: CheckRequest,
    record: Record,
    ready: Opened,
    takes: list[dict[str, Any]],
    progress: Progress,
) -> tuple[Case, Quality | None]:
    before = record.quality.baseline if record.quality else None
    data = load_data(request.recipe, takes) if request.recipe is not None else None
    if data is None:
        if request.max_drop is not None:
            raise UsageError("`--max-drop` needs data: name it with `--data` or in a `--config`.")
        text = "there is no data; name it with `--data` or `--config`"
        return Case("accuracy", "skipped", text), None
    progress.stage("evaluating")
    data = data.fitting(ready.graph, draw_inputs(takes, 0))
    if not data.is_labeled:
        text = f"`{data.metric_name}` can't be taken: there is no evaluation data"
        asks = request.max_drop is not None
        return Case("accuracy", "inconclusive" if asks else "skipped", text, 5 if asks else 0), None
    examples, device = _reported(data, record), request.target.device
    now, count = evaluate(ready.module, examples, data.metric, device)
    quality = Quality(data.metric_name, True, before, now, None, count)
    text = f"{data.metric_name} {now:.4f} on {count} examples"
    unlike = record.quality is not None and record.quality.metric != data.metric_name
    if before is None or unlike:
        text += "; that of the original is not known"
        if unlike and record.quality is not None:
            text += f" by this metric, only `{record.quality.metric}`"
        asks = request.max_drop is not None
        return Case("accuracy", "inconclusive" if asks else "skipped", text, 5 if asks else 0), (
            replace(quality, baseline=None) if unlike else quality
        )
    asked = request.max_drop
    limit = asked if asked is not None else request.recipe.limits.max_drop  # type: ignore[union-attr]
    text += f", {before:.4f} of the original; at most {limit:g} may be lost"
    broken = before - now > limit + 1e-9
    return Case("accuracy", "failed" if broken else "passed", text, 4 if broken else 0), quality
