"""The workbench: one opened job with everything the stages of a run share."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from ..adjusters.plan import Context
from ..checkpoints.read import Source
from ..configs.recipe import Recipe
from ..core.records import Comparison, Latency, Notice, Quality
from ..graph.capture import capture, clone
from ..profiling.accuracy import agreement
from ..profiling.layers import count_macs
from ..profiling.notices import subnormal_weights
from ..profiling.statistics import compare
from ..profiling.timer import measure, measure_interleaved
from .data import Data, load_data
from .job import Job, check_runs, example_inputs, open_source, prepare_machine
from .runtimes import PLAIN, fastest, realise, runner
from .talk import Talk


@dataclass
class Bench:
    """`runtime` is the measured choice, made once on the lossless variant."""

    job: Job
    recipe: Recipe
    talk: Talk
    source: Source
    inputs: tuple[Tensor, ...]
    original: GraphModule
    data: Data | None
    started: float = field(default_factory=time.monotonic)
    runtime: str = PLAIN

    @property
    def deadline(self) -> float:
        return self.started + 60.0 * self.recipe.limits.minutes

    @property
    def device(self) -> str:
        return self.job.target.device

    def context(self, module: GraphModule) -> Context:
        train = self.data.train if self.data else None
        return Context(module, self.inputs, train, self.device, self.job.seed)

    def choose_runtime(self, module: GraphModule) -> None:
        target = self.job.target
        self.runtime = fastest(module, self.inputs, target.runtime, target.percentile)

    def latency(self, module: nn.Module, seconds: float = 2.0) -> Latency:
        """Measured latency of a module as it is (eager, or already realised)."""
        target = self.job.target
        return measure(
            runner(module, self.inputs),
            percentile=target.percentile,
            max_seconds=max(seconds, _least_seconds(target.percentile)),
            min_seconds=0.2,
            device=target.device,
        )

    def realised_latency(self, module: GraphModule, seconds: float = 2.0) -> Latency:
        """Latency of a graph under the chosen runtime."""
        with torch.no_grad():
            ready = realise(clone(module), self.inputs, self.runtime)
        return self.latency(ready, seconds)

    def compare(
        self, before: GraphModule, after: GraphModule
    ) -> tuple[Latency, Latency, Comparison]:
        """Two graphs under the chosen runtime, interleaved, so that drift hits both alike."""
        target = self.job.target
        with torch.no_grad():
            ready = [realise(clone(m), self.inputs, self.runtime) for m in (before, after)]
        first, second = measure_interleaved(
            [runner(m, self.inputs) for m in ready],
            percentile=target.percentile,
            max_seconds=_least_seconds(target.percentile),
            min_seconds=0.3,
            device=target.device,
        )
        found = compare(first.samples_ms, second.samples_ms, target.percentile)
        return first, second, found

    def accuracy(self, module: nn.Module) -> float | None:
        return self.data.accuracy(module, self.device)[0] if self.data else None

    def quality(self, final: nn.Module) -> Quality:
        """Accuracy where there is data, agreement with the original in any case."""
        if self.data is None:
            same = agreement(self.original, final, self._drawn(), self.device)
            return Quality("agreement", False, agreement=same, examples=len(self._drawn()))
        before, count = self.data.accuracy(self.original, self.device)
        after, _ = self.data.accuracy(final, self.device)
        same = agreement(self.original, final, self.data.eval, self.device)
        return Quality(self.data.metric_name, True, before, after, same, count)

    def notices(self) -> tuple[Notice, ...]:
        found = subnormal_weights(dict(self.source.module.state_dict()))
        return (found,) if found else ()

    def macs(self, module: GraphModule) -> int:
        return count_macs(module, self.inputs)

    def _drawn(self) -> list[Tensor]:
        """Random inputs stand in for data that is not there."""
        generator = torch.Generator().manual_seed(self.job.seed + 1)
        shape = self.inputs[0].shape
        if not self.inputs[0].is_floating_point() or len(self.inputs) > 1:
            return [self.inputs[0]]
        return [torch.randn(shape, generator=generator) for _ in range(64)]


def _least_seconds(percentile: float) -> float:
    """Tails need many samples, so they get more time."""
    return 2.0 if percentile <= 90 else 20.0


def open_bench(job: Job, recipe: Recipe, talk: Talk) -> Bench:
    """Load, check and capture. Raises the errors of each part; nothing is written."""
    prepare_machine(job.target, job.seed)
    talk.stage("loading")
    source = open_source(job)
    data = load_data(recipe)
    source.module.to(job.target.device)
    inputs = example_inputs(job, source)
    check_runs(source, inputs)
    talk.stage("capturing the graph")
    original = capture(source.module, inputs)
    for parameter in original.parameters():
        parameter.requires_grad_(False)
    return Bench(job, recipe, talk, source, inputs, original, data)


def parameters_of(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def seconds_left(bench: Bench) -> float:
    return math.inf if bench.deadline == math.inf else bench.deadline - time.monotonic()
