"""Measured facts, as frozen dataclasses with a JSON round trip. Standard library only.

Units: times in ms unless the name says seconds, sizes in bytes, ratios and accuracies as fractions.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Annotated, Any, Literal, TypeVar

from .bounds import (
    DEVICE,
    MOST_BATCH,
    MOST_THREADS,
    Count,
    Finite,
    Percentile,
    Positive,
    Relative,
    Score,
    Time,
    Within,
    foreign_json,
)
from .errors import ArtifactError

FORMAT_VERSION = 1
Verdict = Literal["met", "missed", "inconclusive", "none"]
T = TypeVar("T")
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
    batch: Annotated[int, Within(1, MOST_BATCH)] = 1
    device: Annotated[str, DEVICE] = "cpu"
    threads: Annotated[int, Within(0, MOST_THREADS)] = 0
    runtime: Literal["plain", "lowered", "inductor"] = "lowered"
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
class Quality:
    """Accuracy of baseline and final variant, or agreement only where no labels are known.

    `agreement` is the fraction of equal argmax predictions (or 1 - relative error where the
    output is not a class score) between original and final on the data or the example inputs.
    """

    metric: str
    known: bool
    baseline: Score | None = None
    final: Score | None = None
    agreement: Score | None = None
    examples: Count = 0

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
    settings: dict[str, Any]
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
    `accuracy` is that on held-out training data for what was tried on the way.
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
class Record:
    """Everything one run measured. `baseline` is the user's eager model on the same machine."""

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
    format_version: int = field(default=FORMAT_VERSION)


def to_json(value: Any) -> Any:
    """A dataclass (nested) as plain JSON types."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(k): to_json(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(v) for v in value]
    return value


def from_json(cls: type[T], data: Any, where: str = "record") -> T:
    """Inverse of `to_json`. Raises ArtifactError naming the first field that does not fit."""
    if not isinstance(data, dict):
        raise ArtifactError(f"`{where}` must be a JSON object; found {type(data).__name__}.")
    hints = typing.get_type_hints(cls, include_extras=True)
    unknown = sorted(set(data) - set(hints))
    if unknown:
        raise ArtifactError(
            f"`{where}` has the unknown field `{unknown[0]}`; was it written by a newer version?"
        )
    values = {k: _decode(hints[k], v, f"{where}.{k}") for k, v in data.items()}
    try:
        return cls(**values)
    except TypeError as error:
        raise ArtifactError(f"`{where}` is incomplete: {error}.") from error


def _decode(hint: Any, value: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        decoded = _decode(args[0], value, where)
        if wanted := args[1].unlike(decoded):
            raise ArtifactError(f"`{where}` is {_short(value)}; it must be {wanted}.")
        return decoded
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in args:
            return None
        return _decode(next(a for a in args if a is not type(None)), value, where)
    if origin is tuple:
        return _decode_tuple(args, value, where)
    if origin in (list, Sequence):
        return list(_decode_tuple(args, value, where))
    if origin in (dict, Mapping):
        return _decode_mapping(args[1], value, where)
    if origin is Literal:
        if not isinstance(value, (str, int)) or value not in args:
            allowed = ", ".join(map(str, args))
            raise ArtifactError(f"`{where}` is {_short(value)}; allowed are {allowed}.")
        return value
    if is_dataclass(hint):
        return from_json(hint, value, where)  # type: ignore[arg-type]
    if hint is Any and (found := foreign_json(value)):
        raise ArtifactError(f"`{where}` holds {found}.")
    return _decode_plain(hint, value, where)


def _decode_plain(hint: Any, value: Any, where: str) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError as error:
            raise ArtifactError(f"`{where}` is a number of {value.bit_length()} bits.") from error
    if hint in (int, float, str, bool) and (
        not isinstance(value, hint) or (hint is not bool and isinstance(value, bool))
    ):
        raise ArtifactError(f"`{where}` must be {hint.__name__}; found {type(value).__name__}.")
    return value


def _short(value: Any) -> str:
    text = "a number of many digits" if _vast(value) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _vast(value: Any) -> bool:
    return isinstance(value, int) and value.bit_length() > 128


def _decode_tuple(args: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise ArtifactError(f"`{where}` must be a list; found {type(value).__name__}.")
    return tuple(_decode(args[0], v, f"{where}[{i}]") for i, v in enumerate(value))


def _decode_mapping(hint: Any, value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ArtifactError(f"`{where}` must be a JSON object; found {type(value).__name__}.")
    return {k: _decode(hint, v, f"{where}.{k}") for k, v in value.items()}


@dataclass(frozen=True)
class Verification:
    """Measurements of a fresh process, baseline and artifact interleaved.

    `quality`: of the loaded artifact, where it was asked for. `closeness`: of its outputs to those
    of its plain graph.
    """

    baseline: Latency
    final: Latency
    comparison: Comparison
    closeness: Closeness
    quality: Quality | None = None
