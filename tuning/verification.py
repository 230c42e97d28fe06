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
from ..core.errors import MeasureError, OutputsDiffer
from ..core.model_io import Inputs
from ..core.records import Latency, Quality, Verification
from ..core.records_json import from_json, to_json
from ..data.load import Data, load_data
from ..profiling.closeness import plain_outputs
from ..profiling.gate import working
from ..profiling.patience import OF_THIS_PROCESS
from ..profiling.questions import Clear
from ..profiling.state import kept_state
from ..profiling.statistics import compare_samples, widened
from ..profiling.timer import measure_interleaved
from ..profiling.undisturbed import Attempts, undisturbed
from ..runtime.load import open_artifact
from .fresh_process import answer_of, answer_request, taken
from .job import Job, example_inputs, open_source, prepare_machine, program_inputs
from .judgements import Judgements
from .probes import probes
from .quality import ALL, EvaluationPart, quality_of

PATIENCE, MAX_ATTEMPTS = 60.0, 100


@dataclass(frozen=True)
class VerificationRequest:
    """`usual_ms`: what the original takes while the machine is undisturbed. `recipe` (YAML) names
    the data; `judged`: the metric is evaluated, too, on `part` of them. `patience`: seconds that a
    machine which is slower than that is measured again for."""

    job: Job
    folder: str
    usual_ms: float
    seconds: float
    recipe: str
    judged: bool
    part: EvaluationPart = ALL
    patience: float = PATIENCE


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


def verify_here(request: VerificationRequest) -> Verification:
    """The fresh process's side of `verify`."""
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
    data = load_data(recipe, job.inputs or program_inputs(source))
    takes = draw_inputs(artifact.manifest["inputs"], 0)
    inputs = replace(inputs, varies=takes.varies)
    outputs = plain_outputs(variant.graph, probes(variant.graph, inputs, data, job.seed + 1))
    closeness = same_answers(variant.module, outputs, variant.runtime)
    quality, begun = None, working()  # standing still for others of a batch is not its own time
    if request.judged:
        modules, manifest = (original, variant.module), artifact.manifest
        quality = _quality(request, recipe, manifest, modules, inputs, data)
    judging_seconds = round(working() - begun, 3)
    timed = _timed(request, original, variant.module, inputs)
    baseline, final = timed.rows
    comparison = compare_samples(baseline.samples_ms, final.samples_ms, job.target.percentile)
    quieter = min(request.usual_ms, baseline.value_ms)
    if timed.disturbed:
        comparison = widened(comparison, baseline.value_ms / quieter)
    return Verification(
        baseline, final, comparison, closeness, quality, quieter, timed.disturbed,
        judging_seconds=judging_seconds,
    )  # fmt: skip


def _quality(
    request: VerificationRequest,
    recipe: Recipe,
    manifest: Mapping[str, Any],
    modules: tuple[nn.Module, nn.Module],
    inputs: Inputs,
    data: Data | None,
) -> Quality:
    """Accuracy and agreement; of models that were judged on the same data before, as known."""
    job = request.job
    weights = str(manifest["source_sha256"]), f"{manifest['weights_sha256']} {manifest['runtime']}"
    kept = Judgements.of(recipe, request.part, job.seed + 1, job.target.threads)

    def judged(first: nn.Module, second: nn.Module, *rest: Any) -> tuple[float, float, float, int]:
        return kept.judge(list(zip((first, second), weights, strict=True)), *rest)

    return quality_of(*modules, inputs, data, job.target.device, job.seed + 1, judged, request.part)


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
    answer_request(lambda given: verify_here(from_json(VerificationRequest, given, "request")))


if __name__ == "__main__":
    main()
