"""All rungs of a ladder in one fresh process: latency by batch size, memory, cascades.

`python -m modelspeed.tuning.ladder.measuring PARENT` reads a request as JSON on stdin and answers
on stdout.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule

from ...backends.readiness import runner
from ...checkpoints.artifact import LoadedArtifact
from ...configs.load import parse_recipe
from ...core.errors import MeasureError
from ...core.ladder_record import CascadeRecord
from ...core.records import Sample
from ...core.records_json import from_json, to_json
from ...data.load import load_data
from ...profiling.memory import used_memory
from ...runtime.ladder.folder import graphs_opened
from ...runtime.ladder.sharing import share_tensors
from ...runtime.load import Opened, open_artifact
from ..fresh_process import answer_of, answer_request, started
from ..job import Job, example_inputs, input_specs, open_source, prepare_machine
from .cascades import cascades_of
from .staircase import table_of

MODULE = "modelspeed.tuning.ladder.measuring"


@dataclass(frozen=True)
class RungsRequest:
    """`folders`: artifacts from the top down; `recipe` (YAML) names the data. `seconds`: for all
    timing together, 0 for none."""

    job: Job
    folders: tuple[str, ...]
    recipe: str
    seconds: float


@dataclass(frozen=True)
class TimedBatch:
    batch: int
    samples_ms: tuple[Sample, ...]


@dataclass(frozen=True)
class MeasuredRung:
    """`memory_bytes`: what it takes more than the rungs above it."""

    memory_bytes: int
    batches: tuple[TimedBatch, ...]


@dataclass(frozen=True)
class MeasuredRungs:
    """`cascades`: of each rung with the top; `no_cascade`: why there are none."""

    rungs: tuple[MeasuredRung, ...]
    original_memory_bytes: int
    cascades: tuple[CascadeRecord, ...] = ()
    no_cascade: str = ""

    @property
    def memory_bytes(self) -> int:
        return sum(rung.memory_bytes for rung in self.rungs)


def measure_rungs(request: RungsRequest) -> MeasuredRungs:
    """In a new interpreter. Raises MeasureError with its sentence where that fails."""
    answer = answer_of(started(MODULE), to_json(request))
    if "error" in answer:
        reason = answer["error"]
        raise MeasureError(f"the rungs could not be measured in a fresh process: {reason}")
    return from_json(MeasuredRungs, answer, "rungs")


def measure_rungs_here(request: RungsRequest) -> MeasuredRungs:
    """The fresh process's side of `measure_rungs`."""
    job, device = request.job, request.job.target.device
    prepare_machine(job.target, job.seed)
    _warm_up(device)
    before = used_memory(device)
    source = open_source(job)
    original = source.module.to(device)
    inputs = example_inputs(job, source)
    runner(original, inputs)()
    original_bytes = max(0, used_memory(device) - before)
    artifacts, opened, memory = _opened([Path(f) for f in request.folders], device, inputs)
    modules: list[nn.Module] = [one.module for one in opened]
    table: list[dict[int, tuple[float, ...]]] = [{} for _ in opened]
    if request.seconds:
        table = table_of(opened, artifacts, job.target, request.seconds, job.seed)
    recipe = parse_recipe(request.recipe, "recipe.yaml", Path(job.base))
    data = load_data(recipe, input_specs(job, source))
    data = data.fitting(opened[0].graph, inputs) if data is not None else None
    cascades, why_not = cascades_of(modules, data, device)
    rungs = [
        MeasuredRung(held, tuple(TimedBatch(b, ms) for b, ms in sorted(rows.items())))
        for held, rows in zip(memory, table, strict=True)
    ]
    return MeasuredRungs(tuple(rungs), original_bytes, cascades, why_not)


def _opened(
    folders: list[Path], device: str, inputs: Any
) -> tuple[list[LoadedArtifact], list[Opened], list[int]]:
    """The rungs as a `Ladder` holds them, and the bytes by which each raised the process's."""
    artifacts: list[LoadedArtifact] = []
    opened: list[Opened] = []
    marks = [used_memory(device)]

    def graphs() -> Iterator[Sequence[GraphModule]]:
        opens = partial(open_artifact, device=device)
        for rung in graphs_opened(folders, opens, artifacts, opened):
            runner(opened[-1].module, inputs)()
            yield rung
            marks.append(used_memory(device))  # what it shares is free again

    share_tensors(graphs())
    return artifacts, opened, [max(0, after - before) for before, after in pairwise(marks)]


def _warm_up(device: str) -> None:
    """Make the calls in which torch sets up what belongs to no model."""
    x = torch.randn(1, 4, 8, 8, device=device)
    with torch.inference_mode():
        y = nn.functional.conv2d(x, torch.randn(4, 4, 3, 3, device=device))
        nn.functional.linear(y.flatten(1), torch.randn(2, 144, device=device))


def main() -> None:
    answer_request(lambda given: measure_rungs_here(from_json(RungsRequest, given, "request")))


if __name__ == "__main__":
    main()
