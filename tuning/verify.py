"""The final verdict: the written artifact and the user's model, timed in a fresh process.

`python -m modelspeed.tuning.verify` reads a request as JSON on stdin and answers on stdout.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import MeasureError, ModelspeedError
from ..core.processes import die_with_parent, python
from ..core.records import Comparison, Latency, from_json, to_json
from .job import Job


@dataclass(frozen=True)
class Verification:
    """What a fresh process measured, baseline and artifact interleaved."""

    baseline: Latency
    final: Latency
    comparison: Comparison


def verify(job: Job, folder: Path, usual_ms: float, seconds: float = 10.0) -> Verification:
    """Load and time `folder` beside the original in a new interpreter, as the user will run it.

    `usual_ms`: what the original takes while the machine is undisturbed (profiling/undisturbed.py).
    Raises MeasureError with the other process's sentence where it fails.
    """
    request = json.dumps(
        {"job": to_json(job), "folder": str(folder), "usual_ms": usual_ms, "seconds": seconds,
         "parent": os.getpid()}
    )  # fmt: skip
    done = subprocess.run(
        python("-m", "modelspeed.tuning.verify"),
        input=request,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = done.stdout.strip().splitlines()
    answer: dict[str, Any] = json.loads(lines[-1]) if lines else {}
    if done.returncode or "error" in answer or not lines:
        reason = answer.get("error") or (done.stderr.strip().splitlines() or ["no answer"])[-1]
        raise MeasureError(f"the written artifact failed in a fresh process: {reason}")
    return from_json(Verification, answer, "verification")


def measure_both(job: Job, folder: Path, usual_ms: float, seconds: float) -> Verification:
    """The fresh process's side of `verify`."""
    from ..checkpoints.manifest import read_manifest
    from ..profiling.statistics import compare
    from ..profiling.timer import measure_interleaved
    from ..profiling.undisturbed import undisturbed
    from .job import example_inputs, open_source, prepare_machine
    from .loading import load
    from .runtimes import runner

    prepare_machine(job.target, job.seed)
    source = open_source(job)
    if source.sha256 != read_manifest(folder)["source_sha256"]:
        raise MeasureError(f"`{job.checkpoint}` was changed while it was tuned.")
    inputs = example_inputs(job, source)
    device, percentile = job.target.device, job.target.percentile
    original, variant = source.module.to(device), load(folder, device=device)

    def attempt() -> list[Latency]:
        return measure_interleaved(
            [runner(original, inputs), runner(variant, inputs)],
            percentile=percentile,
            max_seconds=seconds,
            device=device,
            seed=job.seed,
        )

    baseline, final = undisturbed(attempt, usual_ms)
    found = compare(baseline.samples_ms, final.samples_ms, percentile)
    return Verification(baseline, final, found)


def main() -> None:
    request = json.loads(sys.stdin.read())
    die_with_parent(int(request["parent"]))
    try:
        job = from_json(Job, request["job"], "job")
        seconds, usual_ms = float(request["seconds"]), float(request["usual_ms"])
        made = measure_both(job, Path(request["folder"]), usual_ms, seconds)
        answer = to_json(made)
    except (ModelspeedError, OSError) as error:
        answer = {"error": str(error)}
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
