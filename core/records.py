"""Measured facts, as frozen dataclasses with a JSON round trip. Standard library only.

Units: times in ms unless the name says seconds, sizes in bytes, ratios and accuracies as fractions.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from .bounds import (
    DEVICE,
    MAX_BATCH,
    MAX_THREADS,
    Count,
    Finite,
    Percentile,
    Positive,
    Relative,
    Score,
    Time,
    Within,
)
from .json_values import JsonObject
from .runtimes import DEFAULT_RUNTIME, Runtime

FORMAT_VERSION = 1
Verdict = Literal["met", "missed", "inconclusive", "none"]
# From a nanosecond to eleven days: a ratio of two can be computed with.
Sample = Annotated[float, Within(1e-6, 1e9)]


@dataclass(frozen=True)
class Notice:
    """One warning of the closed list: what was seen, why it is likely so, what helps."""

    code: str
    seen: str
    cause: str
    remedy: str


@dataclass(frozen=True)
class Latency:
    """One percentile of forward latency with its 95 % interval and the raw samples (ms)."""

    percentile: Percentile
    value_ms: Time
    low_ms: Time
    high_ms: Time
    samples_ms: tuple[Sample, ...] = ()
    notices: tuple[Notice, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """Baseline latency divided by candidate latency: above 1 is faster."""

    speedup: Time
    low: Time
    high: Time
    finding: Literal["faster", "slower", "no significant change"]


@dataclass(frozen=True)
class Target:
    """The goal: at most `ms`, or `speedup` times as fast as the original.

    Or the fastest within the accuracy limit. Nothing is set where only lossless work was asked for.
    `threads` 0 is torch's own choice; `auto_threads`: they are measured, then stand in `threads`.
    """

    ms: Positive | None = None
    speedup: Annotated[float, Within(1.0, above=True)] | None = None
    percentile: Percentile = 50.0
    batch: Annotated[int, Within(1, MAX_BATCH)] = 1
    device: Annotated[str, DEVICE] = "cpu"
    threads: Annotated[int, Within(0, MAX_THREADS)] = 0
    runtime: Runtime = DEFAULT_RUNTIME
    fastest: bool = False
    auto_threads: bool = False


@dataclass(frozen=True)
class Machine:
    """The machine that a latency is valid for; `fingerprint` is the hash of all other fields."""

    cpu: str
    cores: Count
    threads: Count
    device: str
    dtype: str
    torch: str
    python: str
    system: str
    isa: str = ""
    fingerprint: str = ""


@dataclass(frozen=True)
class JudgedScore:
    """The metric of baseline and final variant on the examples that decided, as the fresh process
    saw it; the report has other ones."""

    baseline: Score
    final: Score
    examples: Count = 0

    @property
    def drop(self) -> Finite:
        return self.baseline - self.final


@dataclass(frozen=True)
class Quality:
    """Accuracy of baseline and final variant, or agreement only where no labels are known.

    `agreement` is the fraction of equal argmax predictions (or 1 - relative error where the
    output is not a class score) between original and final on the data or the example inputs.
    `examples` of `total` were read; 0 where that is unknown. `drop_low` and `drop_high`: the 95 %
    interval of the drop, both models on the same examples. `halved`: they are the half that only
    reports; `judged`: on examples that decided.
    """

    metric: str
    known: bool
    baseline: Score | None = None
    final: Score | None = None
    agreement: Score | None = None
    examples: Count = 0
    total: Count = 0
    drop_low: Finite | None = None
    drop_high: Finite | None = None
    halved: bool = False
    judged: JudgedScore | None = None

    @property
    def is_chance(self) -> bool:
        """True if a drop of 0 is within the interval."""
        low, high = self.drop_low, self.drop_high
        return low is not None and high is not None and low <= 0.0 <= high

    @property
    def drop(self) -> Finite | None:
        if self.baseline is None or self.final is None:
            return None
        return self.baseline - self.final


@dataclass(frozen=True)
class Closeness:
    """Distance of the loaded artifact's outputs from those of its plain graph.

    `error`: the largest one relative to the output's size, over two calls in a row on inputs of
    each batch size in `batches`; it may be at most `allowed`.
    """

    error: Relative
    allowed: Relative
    batches: tuple[Count, ...] = ()

    @property
    def holds(self) -> bool:
        return self.error <= self.allowed


@dataclass(frozen=True)
class LayerCost:
    """One operator of the graph; `peak_fraction` of this machine's measured peak FLOP/s."""

    name: str
    op: str
    ms: Finite
    share: Finite
    macs: Count
    bytes: Count
    peak_fraction: Finite
    shape: str = ""


@dataclass(frozen=True)
class StepRecord:
    """One adjustment as it went. Latencies (ms) and accuracies are measured, or None."""

    adjuster: str
    settings: JsonObject
    status: Literal["kept", "rolled back", "skipped"]
    reason: str
    latency_before: Finite | None = None
    latency_after: Finite | None = None
    accuracy_before: Score | None = None
    accuracy_after: Score | None = None
    seconds: Time = 0.0
    edits: Count = 0


@dataclass(frozen=True)
class Candidate:
    """One set of edits that was built and measured during the search.

    `predicted_ms` and `predicted_rise` (in loss) are what the search expected before it measured;
    `accuracy` is that on the data that decides, before fine-tuning.
    """

    label: str
    latency_ms: Time
    latency_low_ms: Time
    latency_high_ms: Time
    accuracy: Score | None = None
    predicted_ms: Finite | None = None
    predicted_rise: Score | None = None
    chosen: bool = False

    @property
    def latency(self) -> Latency:
        """Without percentile and samples: what a search needs of it."""
        return Latency(50.0, self.latency_ms, self.latency_low_ms, self.latency_high_ms)

    def scaled(self, factor: float) -> Candidate:
        """Its latencies on another machine's scale, such as this one's when it is quiet."""
        predicted = self.predicted_ms
        return replace(
            self,
            latency_ms=factor * self.latency_ms,
            latency_low_ms=factor * self.latency_low_ms,
            latency_high_ms=factor * self.latency_high_ms,
            predicted_ms=None if predicted is None else factor * predicted,
        )


@dataclass(frozen=True)
class RuntimeCost:
    """The same variant under one runtime; `ready_seconds`: lowering or compiling it.

    `error`: of its outputs, relative to the plain graph's (`Closeness`).
    """

    name: str
    ms: Time
    low_ms: Time
    high_ms: Time
    ready_seconds: Time
    chosen: bool = False
    error: Relative | None = None


@dataclass(frozen=True)
class ChannelGroup:
    """`size` units that are kept or dropped together; `frozen` says why none may go.

    `members` are the parameter axes they live in, such as `layer1.0.conv1.weight[0]`.
    """

    name: str
    size: Count
    members: tuple[str, ...]
    frozen: str | None = None


@dataclass(frozen=True)
class LeftAlone:
    what: str
    reason: str


@dataclass(frozen=True)
class TimeSpent:
    """Seconds of the run that one kind of work took, and what the plan had set aside for it."""

    what: str
    seconds: Time
    planned: Time | None = None


@dataclass(frozen=True)
class Record:
    """Everything one run measured. `baseline` is the user's eager model on the same machine.

    `reference_ms`: what the original takes in the quietest phase of the run; the verdict goes by
    `speedup` on this scale (`judged`). `max_drop`: the accuracy limit. `advice`: the flags that
    would accept what this machine can reach. `judge`: the data that decided on the way. `sizes`:
    what varies of the inputs, a line each.
    """

    kind: Literal["tune", "apply", "profile"]
    created: str
    version: str
    source: str
    source_sha256: str
    machine: Machine
    target: Target
    verdict: Verdict
    summary: str
    baseline: Latency
    final: Latency | None = None
    speedup: Comparison | None = None
    quality: Quality | None = None
    closeness: Closeness | None = None
    parameters_before: Count = 0
    parameters_after: Count = 0
    macs_before: Count = 0
    macs_after: Count = 0
    seconds: Time = 0.0
    smallest_reachable_ms: Time | None = None
    runtime_used: str = "plain"
    steps: tuple[StepRecord, ...] = ()
    candidates: tuple[Candidate, ...] = ()
    layers_before: tuple[LayerCost, ...] = ()
    layers_after: tuple[LayerCost, ...] = ()
    groups: tuple[ChannelGroup, ...] = ()
    runtimes: tuple[RuntimeCost, ...] = ()
    left_alone: tuple[LeftAlone, ...] = ()
    notices: tuple[Notice, ...] = ()
    reference_ms: Time | None = None
    max_drop: Finite | None = None
    advice: tuple[str, ...] = ()
    time_spent: tuple[TimeSpent, ...] = ()
    judge: str = ""
    sizes: tuple[str, ...] = ()
    format_version: int = field(default=FORMAT_VERSION)

    @property
    def judged(self) -> Latency | None:
        """The final latency on the scale of `reference_ms`; as it was measured without one."""
        if self.final is None or self.speedup is None or not self.reference_ms:
            return self.final
        if min(self.speedup.speedup, self.speedup.low, self.speedup.high) <= 0:  # of a made-up file
            return self.final
        return on_reference(self.final, self.speedup, self.reference_ms)

    @property
    def limit_broken(self) -> bool:
        """True if the metric fell by more than `max_drop`, and that is not in doubt."""
        return self._above_limit and not self.limit_in_doubt

    @property
    def limit_in_doubt(self) -> bool:
        """True if it fell by more on what is reported, by no more on what judged, and the
        difference is within chance."""
        quality, limit = self.quality, self.max_drop
        if not self._above_limit or quality is None or limit is None or quality.judged is None:
            return False
        low = quality.drop_low
        return quality.judged.drop <= limit + 1e-9 and low is not None and low <= limit

    @property
    def _above_limit(self) -> bool:
        drop = self.quality.drop if self.quality else None
        return drop is not None and self.max_drop is not None and drop > self.max_drop + 1e-9


@dataclass(frozen=True)
class Verification:
    """Measurements of a fresh process, baseline and artifact interleaved.

    `quality`: of the loaded artifact, where it was asked for. `closeness`: of its outputs to those
    of its plain graph. `reference_ms`: what the original takes in the quietest phase of the run;
    `disturbed`: it took over 5 % longer here, however often it was measured. `judging_seconds`: of
    `quality`.
    """

    baseline: Latency
    final: Latency
    comparison: Comparison
    closeness: Closeness
    quality: Quality | None = None
    reference_ms: Time = 0.0
    disturbed: bool = False
    judging_seconds: Time = 0.0

    @property
    def judged(self) -> Latency:
        """The latency that verdicts go by: the ratio to the original, on the reference's scale."""
        return on_reference(self.final, self.comparison, self.reference_ms)


def on_reference(final: Latency, ratio: Comparison, reference_ms: float) -> Latency:
    """`final` in ms of a machine on which the original takes `reference_ms`; no samples.

    The original and the variant are measured interleaved, so a slow phase cancels in their ratio.
    Disturbances only add time, so what was measured is a bound from above as well.
    """
    value, low, high = (reference_ms / r for r in (ratio.speedup, ratio.high, ratio.low))
    value, high = min(value, final.value_ms), min(high, final.high_ms)
    return Latency(final.percentile, value, min(low, value), high)
