"""The original's latency, and graphs measured in relation to it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.fx import GraphModule

from ..backends.readiness import runner
from ..backends.registry import PLAIN, first_ready, prepare, ready
from ..core.model_io import Inputs
from ..core.progress import Progress
from ..core.records import Comparison, Latency, Target
from ..profiling.questions import Order, Ratio
from ..profiling.quiet import quiet_ms
from ..profiling.state import kept_state
from ..profiling.statistics import paired_ratio
from ..profiling.timer import measure, measure_interleaved
from ..profiling.undisturbed import undisturbed

UNMEASURED = Latency(50.0, 1.0, 1.0, 1.0)
RUNS = 3
STEP_SHARE = 0.3  # of that time is enough for a step: a small difference undoes none


@dataclass
class Baseline:
    """`latency` is the one reference of a run; `seen` holds every median (ms, of the target's
    percentile) that the original has had in it."""

    latency: Latency = UNMEASURED
    seen: list[float] = field(default_factory=list)

    @property
    def quiet_ms(self) -> float:
        """Time of the original in the quietest phase seen; infinity before any measurement."""
        return quiet_ms(self.seen) if self.seen else math.inf

    def note(self, ms: float) -> None:
        """Remember what the original took in one more measurement, here or in a fresh process."""
        self.seen.append(ms)

    def relative_latency(
        self,
        original: nn.Module,
        graph: GraphModule,
        inputs: Inputs,
        target: Target,
        runtimes: tuple[str, ...],
        attempts: int = 2,
    ) -> tuple[Latency, str]:
        """Latency of a graph in ms of `latency`, and of `runtimes` the one it is fastest with.

        It is measured interleaved with the original and scaled by what the original takes at that
        moment: a machine whose clock changes by a factor between two candidates can't decide
        which of them is faster. The interval is that of the paired ratio; no samples are kept.
        """
        with torch.no_grad():
            tried = {n: ready(graph, inputs, n) for n in runtimes}
            runs = {n: m for n, m in tried.items() if not isinstance(m, str)}
            runs = runs or {PLAIN: prepare(graph, inputs, PLAIN)}
        # A search measures dozens of candidates; the final verdict gets more time.
        seconds = 0.4 * least_seconds(target.percentile)

        def attempt() -> list[Latency]:
            timed = measure_interleaved(
                [runner(m, inputs) for m in (original, *runs.values())],
                percentile=target.percentile,
                max_seconds=seconds,
                min_seconds=0.3,
                device=target.device,
                batch=target.batch,
                question=Ratio(target.percentile),
            )
            self.note(timed[0].value_ms)
            return timed

        # Measured again if the original is slower than it has been here: the ratio cancels a slower
        # clock, but other disturbances (busy cores, slow thread syncs) hit variants unequally.
        with kept_state(original):
            first, *rows = undisturbed(attempt, self.quiet_ms, attempts).rows
        best = min(range(len(rows)), key=lambda i: rows[i].value_ms)
        ratio, low, high = paired_ratio(first.samples_ms, rows[best].samples_ms, target.percentile)
        return self.scaled(first, rows[best], ratio, low, high), list(runs)[best]

    def scaled(
        self, first: Latency, row: Latency, ratio: float, low: float, high: float
    ) -> Latency:
        """The ratio in ms of `latency`, with its interval."""
        whole = self.latency.value_ms
        # A larger speed-up is a smaller latency, so the interval's ends change places.
        return Latency(row.percentile, whole / ratio, whole / high, whole / low)


@dataclass(frozen=True)
class BaselineRuns:
    """The original measured several times: the fastest run, and the medians of all."""

    fastest: Latency
    medians: tuple[float, ...]

    def baseline(self) -> Baseline:
        return Baseline(self.fastest, list(self.medians))


def measured_baseline(model: nn.Module, inputs: Inputs, target: Target) -> BaselineRuns:
    """Three runs, the fastest of which shows the machine undisturbed."""
    with kept_state(model):
        runs = [latency_of(model, inputs, target, 0.4) for _ in range(RUNS)]
    fastest = min(runs, key=lambda run: run.value_ms)
    return BaselineRuns(fastest, tuple(run.value_ms for run in runs))


def latency_of(module: nn.Module, inputs: Inputs, target: Target, seconds: float) -> Latency:
    """For at most so many seconds, of which a tail gets more."""
    return measure(
        runner(module, inputs),
        percentile=target.percentile,
        max_seconds=max(seconds, 0.4 * least_seconds(target.percentile)),
        min_seconds=0.2,
        device=target.device,
        batch=target.batch,
    )


def compared(
    rows: tuple[tuple[GraphModule, str], tuple[GraphModule, str]],
    inputs: Inputs,
    target: Target,
    progress: Progress,
) -> tuple[Latency, Latency, Comparison]:
    """Two graphs, each with its runtime: which is faster, and measured until that is known."""
    with torch.no_grad():
        runs = [first_ready(graph, inputs, (name,), progress.note)[1] for graph, name in rows]
    order = Order(target.percentile)
    first, second = measure_interleaved(
        [runner(m, inputs) for m in runs],
        percentile=target.percentile,
        max_seconds=STEP_SHARE * least_seconds(target.percentile),
        min_seconds=0.0,
        device=target.device,
        batch=target.batch,
        question=order,
    )
    return first, second, order.comparison()


def least_seconds(percentile: float) -> float:
    """Tails need many samples, so they get more time."""
    return 2.0 if percentile <= 90 else 20.0
