"""One opened job: what all stages of a run share. Nothing in it changes while they run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from ..adjusters.plan import Context
from ..backends.agreement import agreeing
from ..backends.ranking import RankedRuntimes, rank_backends
from ..backends.registry import (
    PLAIN,
    candidate_names,
    first_ready,
    furthest_lowering,
    is_compiled,
    is_last,
    keeps_runtime,
    last_names,
    library_version,
)
from ..checkpoints.read import Source
from ..configs.recipe import Recipe
from ..core.errors import CaptureError, MeasureError
from ..core.model_io import Inputs
from ..core.progress import Progress
from ..core.records import Latency, LeftAlone, Notice, TimeSpent
from ..data.load import Data, load_data
from ..data.subset import FirstBatches
from ..graph.capture import clone, tensor_at
from ..graph.state import written_buffers
from ..profiling.closeness import COARSE, PlainOutputs, plain_outputs, tolerance_of
from ..profiling.gate import working
from ..profiling.layers import count_macs
from ..profiling.machine import fingerprint
from ..profiling.notices import keeps_state, subnormal_weights
from ..profiling.state import kept_state
from ..search.lab import HeldOut
from .baseline import Baseline, BaselineRuns, latency_of, measured_baseline
from .batch_axes import settled
from .evaluation import Drop, Evaluation
from .exclusions import Exclusions
from .fresh_process import imported_ahead
from .job import (
    Job,
    check_runs,
    example_inputs,
    open_source,
    prepare_machine,
)
from .journal import Journal, key_of
from .ledger import EVALUATING, JUDGING, MEASURING, OPENING, VERIFYING, Ledger
from .machine_cache import MachineCache
from .planning import costs_of, work_of
from .probes import probes
from .quality import EvaluationPart
from .schedule import Sizes, plan_lines, planned_seconds
from .sizes import captured_at_sizes, with_sizes
from .spinning import without_spinning
from .targets import check_targets
from .threads import ThreadChoice, with_fastest
from .time_plan import TimePlan

COUNTED = 1.0  # seconds for the size of data that only a pass tells


@dataclass(frozen=True)
class Kernels:
    """Runtimes worth trying, the fastest first; and why others are not."""

    runtimes: tuple[str, ...] = (PLAIN,)
    left_out: tuple[LeftAlone, ...] = ()


@dataclass(frozen=True)
class Session:
    """`state`: the buffers that a call writes, as the checkpoint has them.

    `exclusions`, `journal`, `ledger` and `time` are records that only grow; `baseline` is measured,
    `kernels` are chosen and `evaluation` is sized once, by the stages that give back a session with
    them.
    """

    job: Job
    recipe: Recipe
    progress: Progress
    source: Source
    inputs: Inputs
    original: GraphModule
    data: Data | None
    probes: tuple[Inputs, ...]
    state: dict[str, Tensor]
    exclusions: Exclusions
    journal: Journal = field(default_factory=Journal)
    time: TimePlan = field(default_factory=TimePlan)
    ledger: Ledger = field(default_factory=Ledger)
    evaluation: Evaluation | None = None
    baseline: Baseline = field(default_factory=Baseline)
    kernels: Kernels = field(default_factory=Kernels)
    remarks: tuple[Notice, ...] = ()
    threads_known: bool = False

    @property
    def seconds(self) -> float:
        """Time the run has taken, what was interrupted before included."""
        return self.journal.before + working() - self.time.started

    @property
    def time_spent(self) -> tuple[TimeSpent, ...]:
        """Where `seconds` went so far."""
        return self.ledger.rows(self.seconds, self.journal.before, self.time.planned)

    @property
    def fingerprint(self) -> str:
        """Of this machine with this run's device and dtype: what latencies are valid for."""
        parameters = list(self.original.parameters())
        dtype = {"dtype": parameters[0].dtype} if parameters else {}
        return fingerprint(self.device, **dtype).fingerprint

    @property
    def cache(self) -> MachineCache:
        """Of what this machine has shown of this checkpoint before."""
        return MachineCache.of(self.fingerprint, self.source.sha256, self.original, self.inputs)

    @property
    def device(self) -> str:
        return self.job.target.device

    @property
    def reference(self) -> Latency:
        """The original's latency that candidates are put in relation to."""
        return self.baseline.latency

    @property
    def quiet_ms(self) -> float:
        """Time of the original in the quietest phase that this run has seen."""
        return self.baseline.quiet_ms

    @property
    def runtimes(self) -> tuple[str, ...]:
        """Worth trying, the fastest first."""
        return tuple(n for n in self.kernels.runtimes if self.exclusions.allows(n)) or (PLAIN,)

    def with_journal(self, kind: str, resume: bool) -> Session:
        """Write down what the run finds out from here on, or go on from what was.

        It is found by the target as the user gave it: the thread count that a busy machine allows
        is not the next run's, which goes on with the one that is written down.
        """
        key = key_of(kind, self.job, self.recipe, self.source.sha256, self.fingerprint)
        return replace(self, journal=Journal.open(key, resume, self.progress)).with_threads()

    def with_threads(self) -> Session:
        """The thread count of all that is measured; once, before anything else is."""
        if self.threads_known:
            return self
        with self.ledger.spends(MEASURING), kept_state(self.source.module):
            chosen = self._threads()
        target = chosen.used_by(self.job.target)
        remarks = (*self.remarks, *chosen.remarks)
        job = replace(self.job, target=target)
        return replace(self, job=job, remarks=remarks, threads_known=True)

    def _threads(self) -> ThreadChoice:
        target, inputs, progress = self.job.target, self.inputs, self.progress
        if not ThreadChoice.is_open(target):
            return ThreadChoice()

        def chosen() -> ThreadChoice:
            fastest = with_fastest(target, self.original, inputs, progress)
            fewer, remarks = without_spinning(fastest, self.source.module, inputs, progress)
            return ThreadChoice(fewer.threads, remarks)

        return self.journal.kept("threads", ThreadChoice, chosen)

    def with_baseline(self) -> Session:
        """The original in three runs, the fastest of which shows the machine undisturbed."""
        session = self.with_threads()

        def measured() -> BaselineRuns:
            return measured_baseline(session.source.module, session.inputs, session.job.target)

        with session.ledger.spends(MEASURING):
            runs = session.journal.kept("baseline", BaselineRuns, measured)
        return replace(session, baseline=runs.baseline())

    def with_kernels(self, module: GraphModule) -> Session:
        """The runtimes that are fastest for `module` here, compared with the plain graph."""
        with self.ledger.spends(MEASURING):
            kernels = self.journal.kept("kernels", Kernels, lambda: self._chosen(module))
        self.exclusions.note_runtimes(kernels.left_out)
        return replace(self, kernels=kernels)

    def _chosen(self, module: GraphModule) -> Kernels:
        """As an earlier run on this machine found them, or measured."""
        asked = self.job.target.runtime
        here = {PLAIN, *candidate_names(module, self.inputs, asked)}
        libraries = {library_version(name) for name in here} - {""}
        name = "-".join(["kernels", asked, *sorted(libraries)])
        ranking = self.cache.kept(
            name, RankedRuntimes, lambda: self._ranked(module), lambda r: r.lasts,
            lambda r: bool(r.names) and here.issuperset(r.names),
        )  # fmt: skip
        return Kernels(ranking.names, ranking.left_out)

    def with_plan(
        self, *, searches: bool = False, trains: bool = False, share: float = 1.0
    ) -> Session:
        """Time one evaluation and divide `limits.minutes`; said before the long work begins."""
        with self.ledger.spends(EVALUATING):
            work = work_of(self.data, self.recipe, searches, trains, share)
            if self.data is not None:
                self.progress.note(f"judged by {self.data.remark}")
                self.time.knows(**costs_of(self.data, self.original, self.device, self.job.seed))
            self.time.knows_opening(self.ledger.total(OPENING), self.is_halved)
            asked = self.job.target.runtime
            late = is_last(asked) or bool(last_names(self.original, self.inputs, asked))
            self.time.knows_runtime(is_compiled(asked), late)
            # A run that goes on scores on the same examples as before.
            kept = self.journal.kept("sizes", Sizes, lambda: Sizes.of(self.time.make(work)))
            made = self.time.make(work, kept)
            self.time.planned = planned_seconds(made, self.time.costs, work, self.ledger.seconds)
            for line in plan_lines(made, self.time.costs, work, self.time.left, self.time.limit):
                self.progress.note(line)
            if self.data is None:
                return self
            evaluation = Evaluation.of(
                self.data, self.original, self.device, self.job.seed, kept.decided_on,
                kept.scored_on,
            )  # fmt: skip
        data = replace(self.data, held_out=evaluation.held_out.batches)
        return replace(self, data=data, evaluation=evaluation)

    @contextmanager
    def verifying(self, cost: str = "verification") -> Iterator[list[float]]:
        """A fresh process at work; the list takes the seconds that it evaluated for. `cost`: the
        plan's name for the rest of its time."""
        judging: list[float] = []
        begun = working()
        with self.ledger.spends(VERIFYING):
            yield judging
        self.ledger.moved(sum(judging), VERIFYING, JUDGING)
        if not self.is_halved:
            self.time.judged += sum(judging)
        seconds = working() - begun - sum(judging) + imported_ahead()
        self.time.saw(cost, max(0.0, seconds))

    def trusted(self, name: str) -> str:
        """`name`, or the best there is where it is left out."""
        return name if self.exclusions.allows(name) else self.runtimes[0]

    def runtimes_for(self, module: GraphModule, usual: str) -> tuple[str, ...]:
        """Runtimes for a graph in another number format that give the plain graph's outputs: those
        with kernels for it, or `usual` if there are none."""
        names = [n for n in self.runtimes_to_try(module, usual) if self._gives_the_same(module, n)]
        return tuple(names) or (usual,)

    def runtimes_to_try(self, module: GraphModule, usual: str) -> tuple[str, ...]:
        """The same before their outputs were compared."""
        if self.job.target.runtime == PLAIN:
            return (PLAIN,)
        asked = self.job.target.runtime
        known = [usual, *self.runtimes, *candidate_names(module, self.inputs, asked)]
        known = [n for n in known if keeps_runtime(n)]
        # Asked for by name, one that takes every format alone counts.
        if asked not in known and (furthest := furthest_lowering(module, self.inputs)):
            known.append(furthest)
        return tuple(n for n in dict.fromkeys(known) if self.exclusions.allows(n)) or (usual,)

    def runtime_for(self, module: GraphModule, usual: str) -> str:
        """The fastest of them, measured where there are several."""
        first, *others = self.runtimes_for(module, usual)
        return self.relative_latency(module, (first, *others))[1] if others else first

    def runtime_that_runs(self, module: GraphModule, runtime: str) -> str:
        """`runtime`, or `plain` where a kernel of it refuses this graph."""
        return first_ready(module, self.inputs, (runtime,), self.progress.note)[0]

    def fastest_runtime(self, module: GraphModule) -> str:
        """Measured: of weights alone in integers, most run as floats on whatever suits them."""
        with self.ledger.spends(MEASURING):
            ranking = self._ranked(module)
        self.exclusions.note_runtimes(ranking.left_out)
        return ranking.names[0]

    def _ranked(self, module: GraphModule) -> RankedRuntimes:
        target = self.job.target
        return rank_backends(module, self.inputs, target.runtime, self.probes)

    def _gives_the_same(self, module: GraphModule, name: str) -> bool:
        """Asked for a runtime's first graph in another format; the fresh process asks for each."""
        if not self.exclusions.is_compared(name):
            try:
                agreeing(module, self.inputs, name, plain_outputs(module, self.probes))
                self.exclusions.trust(name)
            except MeasureError as error:
                self.exclusions.leave_out_runtime(name, str(error))
        return self.exclusions.allows(name)

    def fresh(self) -> GraphModule:
        """A copy of the original with the state that the checkpoint has."""
        return self.put_back(clone(self.original))

    def put_back(self, module: GraphModule) -> GraphModule:
        """The state that calls left in `module` becomes the checkpoint's again, in place."""
        with torch.inference_mode():
            for name, value in self.state.items():
                tensor_at(module, name).copy_(value)
        return module

    def context(self, module: GraphModule) -> Context:
        train = (
            FirstBatches(self.data.train, deadline=self.time.work_deadline) if self.data else None
        )
        return Context(
            module, self.inputs, train, self.device, self.job.seed,
            lowered=self.job.target.runtime != PLAIN, model=self.source.module,
        )  # fmt: skip

    def latency(self, module: nn.Module, seconds: float = 2.0) -> Latency:
        """Measured latency of a module as it is (eager, or already prepared)."""
        with self.ledger.spends(MEASURING), kept_state(module):
            return latency_of(module, self.inputs, self.job.target, seconds)

    def relative_latency(
        self, module: GraphModule, runtimes: tuple[str, ...] = (), attempts: int = 2
    ) -> tuple[Latency, str]:
        """Of a graph in ms of `reference`, and the runtime it is fastest with (of `runtimes`)."""
        with self.ledger.spends(MEASURING):
            return self.baseline.relative_latency(
                self.source.module, module, self.inputs, self.job.target,
                runtimes or self.runtimes, attempts,
            )  # fmt: skip

    def drop(self, before: nn.Module, after: nn.Module, limit: float) -> Drop | None:
        """The fall of the metric on as many examples as tell whether it is above `limit`."""
        if self.evaluation is None:
            return None
        with self.ledger.spends(EVALUATING):
            sample = self.evaluation.on_the_way
            return sample.drop(before, after, limit, self.time.work_deadline)

    def held_out(self, module: nn.Module | None) -> HeldOut:
        """Of a candidate, or of the original for None. Only with data and a plan."""
        assert self.evaluation is not None
        with self.ledger.spends(EVALUATING):
            return self.evaluation.held_out.score(module)

    @property
    def is_halved(self) -> bool:
        """True if the data that reports is not what decides."""
        return self.data is not None and self.data.halves is not None

    @property
    def is_by_answers(self) -> bool:
        """True if the original's own answers judge, since there is no evaluation data."""
        return self.data is not None and not self.data.is_labeled

    @property
    def last_word(self) -> EvaluationPart:
        """The evaluation data that the fresh process reports on."""
        made, halves = self.time.made, self.data.halves if self.data else None
        total = halves.counts[1] if halves is not None and halves.counts else 0
        examples = made.examples if made else 0
        return EvaluationPart(examples, self.time.judging_seconds, total=total)

    @property
    def judging(self) -> EvaluationPart:
        """The data by which a fresh process says how a finished variant compares with others."""
        if not self.is_halved:
            return self.last_word
        time, made = self.time, self.time.made
        examples = made.decided_on if made else 0
        return EvaluationPart(examples, time.deciding_seconds(examples), "judge")

    def notices(self) -> tuple[Notice, ...]:
        notices = (
            subnormal_weights(dict(self.source.module.state_dict())),
            keeps_state(self.state),
        )
        return (*self.remarks, *(notice for notice in notices if notice is not None))

    def macs(self, module: GraphModule) -> int:
        return count_macs(module, self.inputs)


def open_session(job: Job, recipe: Recipe, progress: Progress) -> Session:
    """Load, check and capture. Raises the errors of each part; nothing is written."""
    time, ledger = TimePlan(60.0 * recipe.limits.minutes), Ledger()
    with ledger.spends(OPENING):
        return _opened(job, recipe, progress, time, ledger)


def _opened(
    job: Job, recipe: Recipe, progress: Progress, time: TimePlan, ledger: Ledger
) -> Session:
    prepare_machine(job.target, job.seed)
    progress.stage("loading")
    source = open_source(job)
    for note in source.notes:
        progress.note(note)
    source.module.to(job.target.device)
    job = settled(job, source)
    data = load_data(recipe, job.inputs)
    inputs = example_inputs(job, source)
    with kept_state(source.module):
        outputs = check_runs(source, inputs)
    if data is not None and outputs[0].dim() == 2 and data.classes not in (0, outputs[0].shape[1]):
        progress.note(
            f"the data has {data.classes} classes, the model {outputs[0].shape[1]}; classes are "
            "numbered by the names of their folders, from 0: are these the model's numbers?"
        )
    progress.stage("capturing the graph")
    # A copy: what calls of one write into its buffers, the other must not see.
    captured = captured_at_sizes(source.module, inputs, job.seed)
    original, inputs = clone(captured.graph), captured.inputs
    job = replace(job, inputs=with_sizes(job.inputs, inputs))
    for parameter in original.parameters():
        parameter.requires_grad_(False)
    state = {n: tensor_at(original, n).detach().clone() for n in written_buffers(original)}
    tried = probes(original, inputs, data, job.seed + 1)
    _check_captured(source, original, tried[0])
    if data is not None:
        data = data.fitting(original, inputs).counted(COUNTED)
        data = data.answered_by(original, job.target.device, job.seed)
        check_targets(data, original, recipe, job.target.device)
    exclusions = Exclusions(progress)
    for row in captured.left_out:
        progress.note(f"{row.what}: {row.reason}")
        exclusions.set_aside(row.what, row.reason)
    return Session(
        job, recipe, progress, source, inputs, original, data, tried, state, exclusions,
        time=time, ledger=ledger,
    )  # fmt: skip


def _check_captured(source: Source, original: GraphModule, inputs: Inputs) -> None:
    """Raises CaptureError where the graph is not what the model computes, twice in a row."""
    allowed = tolerance_of((*original.parameters(), *original.buffers()))
    coarse = allowed == COARSE
    wanted = PlainOutputs.of(source.module, (inputs,), allowed, coarse=coarse, fresh=True)
    match = wanted.closeness(original)
    if not match.holds:
        raise CaptureError(
            f"the captured graph of `{source.path}` gives other outputs than the model (they "
            f"differ by {match.error:.2g} of their size); does its `forward` draw random numbers, "
            "or keep something between calls that is not a buffer?"
        )


def parameters_of(module: nn.Module) -> int:
    # A parameter of bytes holds two weights of 4 bits in each.
    return sum(p.numel() * (2 if p.dtype == torch.uint8 else 1) for p in module.parameters())
