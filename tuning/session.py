"""The workbench: one opened job with everything the stages of a run share."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from ..adjusters.plan import Context
from ..backends.agreement import agreeing
from ..backends.ranking import rank_backends, runtime_row
from ..backends.readiness import runner
from ..backends.registry import (
    PLAIN,
    first_ready,
    furthest_lowering,
    keeps_runtime,
    prepare,
    ready,
)
from ..checkpoints.read import Source
from ..configs.recipe import Recipe
from ..core.errors import CaptureError, MeasureError
from ..core.model_io import Inputs
from ..core.progress import Talk
from ..core.records import Comparison, Latency, LeftAlone, Notice, RuntimeCost, Target
from ..data.load import Data, load_data
from ..graph.capture import capture, clone, tensor_at
from ..graph.state import written_buffers
from ..profiling.closeness import COARSE, PlainOutputs, expected, tolerance_of
from ..profiling.gate import working
from ..profiling.layers import count_macs
from ..profiling.machine import fingerprint
from ..profiling.notices import keeps_state, subnormal_weights
from ..profiling.state import kept_state
from ..profiling.statistics import compare, paired_ratio
from ..profiling.timer import measure, measure_interleaved
from ..profiling.undisturbed import undisturbed
from ..training.process_group import Group
from .job import Job, check_runs, example_inputs, open_source, prepare_machine, program_inputs
from .journal import Journal, key_of
from .probes import probes
from .targets import check_targets
from .threads import with_fastest

UNMEASURED = Latency(50.0, 1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Kernels:
    """Runtimes worth trying, the fastest first; and why others are not."""

    runtimes: tuple[str, ...]
    left_out: tuple[LeftAlone, ...] = ()


@dataclass
class Bench:
    """`runtimes` are worth trying, by measurement on the lossless variant; `runtime` is in use.

    `reference` is the original's latency that candidates are put in relation to; `quiet_ms` the
    least it took in any measurement of this run. `package` is the finished variant compiled ahead
    of time, where it runs compiled, or `unpackaged` says why there is none. `left_out`: runtimes
    that gave other outputs than the plain graph or failed. `state`: the buffers that a call
    writes, as the checkpoint has them. `failed`: by place, steps of the recipe that raised before
    their turn, and why; `set_aside`: by name, what else did.
    """

    job: Job
    recipe: Recipe
    talk: Talk
    source: Source
    inputs: Inputs
    original: GraphModule
    data: Data | None
    probes: tuple[Inputs, ...] = ()
    state: dict[str, Tensor] = field(default_factory=dict)
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
    left_out: list[LeftAlone] = field(default_factory=list)
    asked: dict[str, bool] = field(default_factory=dict)  # a runtime's answers are the same
    failed: dict[int, str] = field(default_factory=dict)
    set_aside: dict[str, str] = field(default_factory=dict)

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
        found = self.journal.kept("kernels", Kernels, lambda: Kernels(*self._promising(module)))
        self.note_left_out(found.left_out)
        trusted = tuple(n for n in found.runtimes if self.asked.get(n, True))
        self.runtimes = trusted or (PLAIN,)
        self.runtime = self.runtimes[0]

    def runtime_for(self, module: GraphModule) -> str:
        """What a graph in another number format runs under: its kernels, where there are any."""
        if self.job.target.runtime == PLAIN:
            return PLAIN
        if keeps_runtime(self.runtime):
            return self.runtime
        name = furthest_lowering(module, self.inputs)
        if name is None or not self._gives_the_same(module, name):
            return self.runtime
        return name

    def runtime_that_runs(self, module: GraphModule, runtime: str) -> str:
        """`runtime`, or `plain` where a kernel of it refuses this graph."""
        return first_ready(module, self.inputs, (runtime,), self.talk.note)[0]

    def fastest_runtime(self, module: GraphModule) -> str:
        """Measured: of weights alone in integers, most run as floats on whatever suits them."""
        runtimes, left_out = self._promising(module)
        self.note_left_out(left_out)
        return runtimes[0]

    def _promising(self, module: GraphModule) -> tuple[tuple[str, ...], tuple[LeftAlone, ...]]:
        target = self.job.target
        return rank_backends(module, self.inputs, target.runtime, target.percentile, self.probes)

    def _gives_the_same(self, module: GraphModule, name: str) -> bool:
        """Asked for a runtime's first graph in another format; the fresh process asks for each."""
        if name not in self.asked:
            self.asked[name] = True
            try:
                agreeing(module, self.inputs, name, expected(module, self.probes))
            except MeasureError as error:
                self.leave_out(name, str(error))
        return self.asked[name]

    def leave_out(self, name: str, reason: str) -> None:
        """No graph runs under this runtime from here on; the report says why."""
        self.note_left_out((LeftAlone(runtime_row(name), reason),))
        self.asked[name] = False
        self.runtimes = tuple(n for n in self.runtimes if n != name) or (PLAIN,)
        self.runtime = self.trusted(self.runtime)

    def trusted(self, name: str) -> str:
        """`name`, or the best there is where it is left out."""
        return name if self.asked.get(name, True) else self.runtimes[0]

    def note_left_out(self, rows: tuple[LeftAlone, ...]) -> None:
        for row in rows:
            if row not in self.left_out:
                self.talk.note(f"{row.what} is left out: {row.reason}")
                self.left_out.append(row)

    def put_back(self, module: GraphModule) -> GraphModule:
        """The state that calls left in `module` becomes the checkpoint's again, in place."""
        with torch.inference_mode():
            for name, value in self.state.items():
                tensor_at(module, name).copy_(value)
        return module

    def latency(self, module: nn.Module, seconds: float = 2.0) -> Latency:
        """Measured latency of a module as it is (eager, or already prepared)."""
        with kept_state(module):
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
            made = made or {PLAIN: prepare(module, self.inputs, PLAIN)}
        target, seconds = self.job.target, 0.4 * _least_seconds(self.job.target.percentile)

        def attempt() -> list[Latency]:
            return measure_interleaved(
                [runner(m, self.inputs) for m in (self.source.module, *made.values())],
                percentile=target.percentile,
                max_seconds=seconds,
                min_seconds=0.3,
                device=target.device,
            )

        with kept_state(self.source.module):
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

    def notices(self) -> tuple[Notice, ...]:
        found = (subnormal_weights(dict(self.source.module.state_dict())), keeps_state(self.state))
        return tuple(notice for notice in found if notice is not None)

    def macs(self, module: GraphModule) -> int:
        return count_macs(module, self.inputs)


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
    with kept_state(source.module):
        outputs = check_runs(source, inputs)
    if data is not None and outputs[0].dim() == 2 and data.classes not in (0, outputs[0].shape[1]):
        talk.note(
            f"the data has {data.classes} classes, the model {outputs[0].shape[1]}; classes are "
            "numbered by the names of their folders, from 0: are these the model's numbers?"
        )
    talk.stage("capturing the graph")
    # A copy: what calls of one write into its buffers, the other must not see.
    original = clone(capture(source.module, inputs))
    for parameter in original.parameters():
        parameter.requires_grad_(False)
    state = {n: tensor_at(original, n).detach().clone() for n in written_buffers(original)}
    tried = probes(original, inputs, data, job.seed + 1)
    _check_captured(source, original, tried[0])
    if data is not None:
        check_targets(data, original, recipe, job.target.device)
    job = replace(job, target=with_fastest(job.target, original, inputs, talk))
    return Bench(job, recipe, talk, source, inputs, original, data, tried, state, started=started)


def _check_captured(source: Source, original: GraphModule, inputs: Inputs) -> None:
    """Raises CaptureError where the graph is not what the model computes, twice in a row."""
    allowed = tolerance_of((*original.parameters(), *original.buffers()))
    coarse = allowed == COARSE
    wanted = PlainOutputs.of(source.module, (inputs,), allowed, coarse=coarse, fresh=True)
    found = wanted.closeness(original)
    if not found.holds:
        raise CaptureError(
            f"the captured graph of `{source.path}` gives other outputs than the model (they "
            f"differ by {found.error:.2g} of their size); does its `forward` draw random numbers, "
            "or keep something between calls that is not a buffer?"
        )


def parameters_of(module: nn.Module) -> int:
    # A parameter of bytes holds two weights of 4 bits in each.
    return sum(p.numel() * (2 if p.dtype == torch.uint8 else 1) for p in module.parameters())
