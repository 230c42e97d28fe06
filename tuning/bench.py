"""The workbench: one opened job with everything the stages of a run share."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import torch
from torch import nn
from torch.fx import GraphModule

from ..adjusters.plan import Context
from ..checkpoints.read import Source
from ..checkpoints.samples import draw_inputs, specs_of
from ..configs.recipe import Recipe
from ..core.calling import Inputs
from ..core.records import Comparison, Latency, LeftAlone, Notice, Quality, RuntimeCost, Target
from ..graph.capture import capture
from ..graph.lowering import CUDA_GRAPHS
from ..profiling.accuracy import agreement
from ..profiling.gate import working
from ..profiling.layers import count_macs
from ..profiling.machine import fingerprint
from ..profiling.notices import subnormal_weights
from ..profiling.statistics import compare, paired_ratio
from ..profiling.timer import measure, measure_interleaved
from ..profiling.undisturbed import undisturbed
from .data import Data, load_data
from .group import Group
from .job import (
    Job,
    check_runs,
    example_inputs,
    open_source,
    prepare_machine,
    program_inputs,
)
from .journal import Journal, key_of
from .runtimes import PLAIN, first_ready, packed, promising, ready, realise, runner
from .talk import Talk
from .threads import with_fastest

DRAWN = 64
UNMEASURED = Latency(50.0, 1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Kernels:
    """Runtimes worth trying, the fastest first."""

    runtimes: tuple[str, ...]


@dataclass
class Bench:
    """`runtimes` are worth trying, by measurement on the lossless variant; `runtime` is in use.

    `reference` is the original's latency that candidates are put in relation to; `quiet_ms` the
    least it took in any measurement of this run. `package` is the finished variant compiled ahead
    of time, where it runs compiled, or `unpackaged` says why there is none.
    """

    job: Job
    recipe: Recipe
    talk: Talk
    source: Source
    inputs: Inputs
    original: GraphModule
    data: Data | None
    journal: Journal = field(default_factory=Journal)
    group: Group = field(default_factory=Group.current)
    started: float = field(default_factory=working)
    runtimes: tuple[str, ...] = (PLAIN,)
    runtime: str = PLAIN
    reference: Latency = UNMEASURED
    quiet_ms: float = math.inf
    compared: tuple[RuntimeCost, ...] = ()
    package: bytes | None = None
    unpackaged: tuple[LeftAlone, ...] = ()

    @property
    def deadline(self) -> float:
        """A value of `working()`."""
        return self.started + 60.0 * self.recipe.limits.minutes

    @property
    def seconds(self) -> float:
        """Time the run has taken, what was interrupted before included."""
        return self.journal.before + working() - self.started

    @property
    def fingerprint(self) -> str:
        """Of this machine with this run's device and dtype: what latencies are valid for."""
        parameters = list(self.original.parameters())
        dtype = {"dtype": parameters[0].dtype} if parameters else {}
        return fingerprint(self.device, **dtype).fingerprint

    @property
    def device(self) -> str:
        return self.job.target.device

    def keep_journal(self, kind: str, resume: bool) -> None:
        """Write down what the run finds out from here on, or go on from what was."""
        key = key_of(kind, self.job, self.recipe, self.source.sha256, self.fingerprint)
        self.journal = Journal.open(key, resume, self.talk)

    def measure_reference(self) -> None:
        """The original in three goes, the fastest of which shows the machine undisturbed."""

        def measured() -> Latency:
            goes = [self.latency(self.source.module, 1.5) for _ in range(3)]
            return min(goes, key=lambda go: go.value_ms)

        self.reference = self.journal.kept("baseline", Latency, measured)
        self.quiet_ms = self.reference.value_ms

    def context(self, module: GraphModule) -> Context:
        train = self.data.train if self.data else None
        return Context(
            module, self.inputs, train, self.device, self.job.seed,
            lowered=self.job.target.runtime != PLAIN, model=self.source.module,
        )  # fmt: skip

    def choose_runtime(self, module: GraphModule) -> None:
        found = self.journal.kept("kernels", Kernels, lambda: Kernels(self._promising(module)))
        self.runtimes = found.runtimes
        self.runtime = self.runtimes[0]

    def runtime_for(self, module: GraphModule) -> str:
        """What a graph in another number format runs under: its kernels, where there are any."""
        if self.job.target.runtime == PLAIN:
            return PLAIN
        if self.runtime in CUDA_GRAPHS:
            return self.runtime
        return packed(module, self.inputs) or self.runtime

    def runtime_that_runs(self, module: GraphModule, runtime: str) -> str:
        """`runtime`, or `plain` where a kernel of it refuses this graph."""
        return first_ready(module, self.inputs, (runtime,), self.talk.note)[0]

    def fastest_runtime(self, module: GraphModule) -> str:
        """Measured: of weights alone in integers, most run as floats on whatever suits them."""
        return self._promising(module)[0]

    def _promising(self, module: GraphModule) -> tuple[str, ...]:
        target = self.job.target
        return promising(module, self.inputs, target.runtime, target.percentile, self.talk.note)

    def latency(self, module: nn.Module, seconds: float = 2.0) -> Latency:
        """Measured latency of a module as it is (eager, or already realised)."""
        return latency_of(module, self.inputs, self.job.target, seconds)

    def latency_on_reference(
        self, module: GraphModule, runtimes: tuple[str, ...] | None = None
    ) -> tuple[Latency, str]:
        """Latency of a graph in ms of `reference`, and the runtime under which it's fastest.

        `runtimes`: which to try, where it's not those that are worth trying anyway.

        It's measured interleaved with the original and scaled by what the original takes at that
        moment: a machine whose clock changes by a factor between two candidates can't decide
        which of them is faster. The interval is that of the paired ratio; no samples are kept.
        """
        with torch.no_grad():
            names = runtimes or self.runtimes
            made = {n: m for n in names if not isinstance(m := ready(module, self.inputs, n), str)}
            made = made or {PLAIN: realise(module, self.inputs, PLAIN)}
        target, seconds = self.job.target, 0.4 * _least_seconds(self.job.target.percentile)

        def attempt() -> list[Latency]:
            return measure_interleaved(
                [runner(m, self.inputs) for m in (self.source.module, *made.values())],
                percentile=target.percentile,
                max_seconds=seconds,
                min_seconds=0.3,
                device=target.device,
            )

        original, *rows = undisturbed(attempt, self.quiet_ms, attempts=2)
        self.quiet_ms = min(self.quiet_ms, original.value_ms)
        best = min(range(len(rows)), key=lambda i: rows[i].value_ms)
        ratio, low, high = paired_ratio(
            original.samples_ms, rows[best].samples_ms, target.percentile
        )
        whole = self.reference.value_ms
        found = Latency(target.percentile, whole / ratio, whole / high, whole / low)
        return found, list(made)[best]

    def compare(
        self, before: GraphModule, after: GraphModule, runtime: str | None = None
    ) -> tuple[Latency, Latency, Comparison]:
        """Two graphs under the chosen runtime, interleaved, so that drift hits both alike.

        `runtime`: what `after` runs under, where that is another one.
        """
        target, names = self.job.target, (self.runtime, runtime or self.runtime)
        with torch.no_grad():
            made = [
                first_ready(m, self.inputs, (name,), self.talk.note)[1]
                for m, name in zip((before, after), names, strict=True)
            ]
        first, second = measure_interleaved(
            [runner(m, self.inputs) for m in made],
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

    def _drawn(self) -> list[tuple[Inputs, None]]:
        """Random inputs stand in for data that is not there."""
        specs, first = specs_of(self.inputs), self.job.seed + 1
        return [(draw_inputs(specs, first + number), None) for number in range(DRAWN)]


def latency_of(module: nn.Module, inputs: Inputs, target: Target, seconds: float) -> Latency:
    return measure(
        runner(module, inputs),
        percentile=target.percentile,
        max_seconds=max(seconds, _least_seconds(target.percentile)),
        min_seconds=0.2,
        device=target.device,
    )


def _least_seconds(percentile: float) -> float:
    """Tails need many samples, so they get more time."""
    return 2.0 if percentile <= 90 else 20.0


def open_bench(job: Job, recipe: Recipe, talk: Talk) -> Bench:
    """Load, check and capture. Raises the errors of each part; nothing is written."""
    started = working()
    prepare_machine(job.target, job.seed)
    talk.stage("loading")
    source = open_source(job)
    for note in source.notes:
        talk.note(note)
    data = load_data(recipe, program_inputs(source))
    source.module.to(job.target.device)
    inputs = example_inputs(job, source)
    outputs = check_runs(source, inputs)
    if data is not None and outputs[0].dim() == 2 and data.classes not in (0, outputs[0].shape[1]):
        talk.note(
            f"the data has {data.classes} classes, the model {outputs[0].shape[1]}; classes are "
            "numbered by the names of their folders, from 0: are these the model's numbers?"
        )
    talk.stage("capturing the graph")
    original = capture(source.module, inputs)
    for parameter in original.parameters():
        parameter.requires_grad_(False)
    job = replace(job, target=with_fastest(job.target, original, inputs, talk))
    return Bench(job, recipe, talk, source, inputs, original, data, started=started)


def parameters_of(module: nn.Module) -> int:
    # A parameter of bytes holds two weights of 4 bits in each.
    return sum(p.numel() * (2 if p.dtype == torch.uint8 else 1) for p in module.parameters())
