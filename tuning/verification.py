"""The final verdict: the written artifact and the user's model in a fresh process.

Latency, accuracy, agreement and closeness of outputs are all of the artifact as `load` gives it
there, since that is what the user will run.

`python -m modelspeed.tuning.verification PARENT` reads a request as JSON on stdin and answers on
stdout.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from ..backends.agreement import same_answers
from ..backends.readiness import runner
from ..checkpoints.artifact import read_artifact
from ..checkpoints.manifest import read_manifest
from ..checkpoints.samples import draw_inputs
from ..configs.load import parse_recipe
from ..configs.recipe import Recipe
from ..core.bounds import Time
from ..core.errors import MeasureError, OutputsDiffer
from ..core.model_io import Inputs
from ..core.records import Latency, Quality, Verification
from ..core.records_json import from_json, to_json
from ..data.load import Data, load_data
from ..profiling.closeness import plain_outputs
from ..profiling.gate import working
from ..profiling.patience import OF_THIS_PROCESS
from ..profiling.questions import Clear
from ..profiling.side_by_side import SideBySide
from ..profiling.state import kept_state
from ..profiling.statistics import compare_samples, widened
from ..profiling.timer import measure_interleaved
from ..profiling.undisturbed import Attempts, undisturbed
from ..runtime.load import Opened, open_artifact
from .fresh_process import answer_of, answer_request, taken
from .job import Job, example_inputs, input_specs, open_source, prepare_machine
from .judgements import Judgements
from .probes import probes
from .quality import ALL, EvaluationPart, quality_of

PATIENCE, MAX_ATTEMPTS = 60.0, 100


@dataclass(frozen=True)
class VerificationRequest:
    """`usual_ms`: what the original takes while the machine is undisturbed. `recipe` (YAML) names
    the data; `judged`: the metric is evaluated, too, on `part` of them. `patience`: seconds that a
    machine which is slower than that is measured again for. `only`: nothing else is asked for."""

    job: Job
    folder: str
    usual_ms: float
    seconds: float
    recipe: str
    judged: bool
    part: EvaluationPart = ALL
    patience: float = PATIENCE
    only: bool = False


def verify(
    job: Job, folder: Path, recipe: str, usual_ms: float, seconds: float, judged: bool,
    part: EvaluationPart = ALL, patience: float = PATIENCE, stuck_after: float = math.inf,
) -> Verification:  # fmt: skip
    """Load, compare, judge and time `folder` in a new interpreter, as the user will run it.

    Raises OutputsDiffer where the loaded artifact does not compute what its plain graph does, and
    MeasureError with the other process's sentence where it fails, or where it has not ended
    `stuck_after` so many seconds.
    """
    request = VerificationRequest(
        job, str(folder), usual_ms, seconds, recipe, judged, part, patience
    )
    answer = answer_of(taken(), to_json(request), stuck_after)
    if "differs" in answer:
        raise OutputsDiffer(answer["error"], answer["differs"])
    if "error" in answer:
        raise MeasureError(f"the written artifact failed in a fresh process: {answer['error']}")
    return from_json(Verification, answer, "verification")


@dataclass(frozen=True)
class Reported:
    """The last word on an artifact that was verified before."""

    quality: Quality
    judging_seconds: Time = 0.0


def report_on(
    job: Job, folder: Path, recipe: str, part: EvaluationPart, stuck_after: float = math.inf
) -> Reported:
    """Evaluate `folder` on the half that reports, in a new interpreter. Raises MeasureError."""
    request = VerificationRequest(job, str(folder), 0.0, 0.0, recipe, True, part, only=True)
    answer = answer_of(taken(), to_json(request), stuck_after)
    if "error" in answer:
        reason = answer["error"]
        raise MeasureError(f"the written artifact could not be reported on: {reason}")
    return from_json(Reported, answer, "report")


def report_here(request: VerificationRequest) -> Reported:
    """The fresh process's side of `report_on`."""
    opened, begun = _opened(request), working()
    quality = _quality(request, opened)
    return Reported(quality, round(working() - begun, 3))


def answer_here(request: VerificationRequest) -> Verification | Reported:
    return report_here(request) if request.only else verify_here(request)


@dataclass(frozen=True)
class _Both:
    """The original and the artifact as a fresh process has them, with inputs and data."""

    original: nn.Module
    variant: Opened
    manifest: Mapping[str, Any]
    recipe: Recipe
    inputs: Inputs
    data: Data | None


def verify_here(request: VerificationRequest) -> Verification:
    """The fresh process's side of `verify`."""
    opened = _opened(request)
    original, variant, inputs = opened.original, opened.variant, opened.inputs
    outputs = plain_outputs(
        variant.graph, probes(variant.graph, inputs, opened.data, request.job.seed + 1)
    )
    closeness = same_answers(variant.module, outputs, variant.runtime)
    quality, begun = None, working()  # standing still for others of a batch is not its own time
    if request.judged:
        quality = _quality(request, opened)
    judging_seconds = round(working() - begun, 3)
    timed = _timed(request, original, variant.module, inputs)
    baseline, final = timed.rows
    percentile = request.job.target.percentile
    comparison = compare_samples(baseline.samples_ms, final.samples_ms, percentile)
    quieter = min(request.usual_ms, baseline.value_ms)
    if timed.disturbed:
        comparison = widened(comparison, baseline.value_ms / quieter)
    return Verification(
        baseline, final, comparison, closeness, quality, quieter, timed.disturbed,
        judging_seconds=judging_seconds,
    )  # fmt: skip


def _opened(request: VerificationRequest) -> _Both:
    job, folder = request.job, Path(request.folder)
    prepare_machine(job.target, job.seed)
    source = open_source(job)
    if source.sha256 != read_manifest(folder)["source_sha256"]:
        raise MeasureError(f"`{job.checkpoint}` was changed while it was tuned.")
    artifact = read_artifact(folder, verify=True)
    inputs, device = example_inputs(job, source), job.target.device
    original, variant = source.module.to(device), open_artifact(artifact, device=device)
    refused = [n for n in variant.notices if n.code in ("runtime_differs", "runtime_fails")]
    if refused:
        raise OutputsDiffer(refused[0].seen, str(artifact.manifest["runtime"]))
    recipe = parse_recipe(request.recipe, "recipe.yaml", Path(job.base))
    data = load_data(recipe, input_specs(job, source))
    if data is not None:
        data = data.fitting(variant.graph, inputs).answered_by(original, device, job.seed)
    takes = draw_inputs(artifact.manifest["inputs"], 0)
    inputs = replace(inputs, varies=takes.varies)
    return _Both(original, variant, artifact.manifest, recipe, inputs, data)


def _quality(request: VerificationRequest, opened: _Both) -> Quality:
    """Accuracy and agreement; of models that were judged on the same data before, as known."""
    job, manifest, data = request.job, opened.manifest, opened.data
    weights = str(manifest["source_sha256"]), f"{manifest['weights_sha256']} {manifest['runtime']}"
    kept = Judgements.of(
        opened.recipe, request.part, job.seed + 1, job.target.threads,
        data.halves if data is not None else None,
    )  # fmt: skip

    def judged(first: nn.Module, second: nn.Module, *rest: Any) -> SideBySide:
        return kept.judge(list(zip((first, second), weights, strict=True)), *rest)

    return quality_of(
        opened.original, opened.variant.module, opened.inputs, data, job.target.device,
        job.seed + 1, judged, request.part,
    )  # fmt: skip


def _timed(
    request: VerificationRequest, original: nn.Module, variant: nn.Module, inputs: Inputs
) -> Attempts:
    target = request.job.target

    def attempt() -> list[Latency]:
        return measure_interleaved(
            [runner(original, inputs), runner(variant, inputs)],
            percentile=target.percentile,
            max_seconds=request.seconds,
            device=target.device,
            seed=request.job.seed,
            batch=target.batch,
            question=Clear(target, request.usual_ms),
        )

    with kept_state(original), kept_state(variant):
        usual_ms, patience = request.usual_ms, request.patience
        OF_THIS_PROCESS.at_most(patience)
        return undisturbed(attempt, usual_ms, attempts=MAX_ATTEMPTS, seconds=patience)


def main() -> None:
    answer_request(lambda given: answer_here(from_json(VerificationRequest, given, "request")))


if __name__ == "__main__":
    main()
