"""`ladder.json`: the rungs of a ladder with what was measured of each, and a JSON round trip.

Units as in core/records.py: times in ms, sizes in bytes, accuracies and shares as fractions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from .bounds import MAX_BATCH, Count, Like, Positive, Score, Time, Within
from .errors import ArtifactError, first_line
from .quantile import quantile
from .records import LeftAlone, Machine, Sample, Target, Verdict
from .records_json import from_json, to_json

LADDER = "ladder.json"
RUNGS = "rungs"
LADDER_VERSION = 1
MAX_RUNGS = 64
MEMORY_FLOOR = 4_000_000  # bytes
MAX_MEMORY_RATIO = 2.0  # of all rungs together to the original: more is warned of
# One folder below `rungs`, so that no file of another owner is named by a changed record.
FOLDER = Like(rf"{RUNGS}/[0-9]{{1,2}}-[A-Za-z0-9_][A-Za-z0-9_.-]{{0,63}}", f"`{RUNGS}/N-NAME`")
SHA256 = Like(r"[0-9a-f]{64}", "a SHA-256 in hexadecimal")
Fraction = Annotated[float, Within(0.0, 1.0)]


@dataclass(frozen=True)
class BatchLatency:
    """Latency of one batch size: three percentiles, and the samples they were taken from."""

    batch: Annotated[int, Within(1, MAX_BATCH)]
    p50_ms: Sample
    p95_ms: Sample
    p99_ms: Sample
    samples_ms: tuple[Sample, ...]

    @classmethod
    def of(cls, batch: int, samples_ms: Sequence[float]) -> BatchLatency:
        """The latency of `batch` with its percentiles. Raises ArtifactError without samples."""
        if not samples_ms:
            raise ArtifactError(f"batch {batch} of a rung has no samples; measure it first.")
        ordered = sorted(samples_ms)
        p50, p95, p99 = (float(quantile(ordered, q)) for q in (0.5, 0.95, 0.99))
        return cls(batch, p50, p95, p99, tuple(float(s) for s in samples_ms))


@dataclass(frozen=True)
class Rung:
    """One variant: an artifact in `folder`, and its measured worth.

    `accuracy` is in the ladder's `metric`, None without labels. `agreement`: share of answers
    equal to the original's, which the top rung gives. `memory_bytes`: once loaded after the rungs
    above. `target`: what it was tuned for, `verdict`: of its fresh process; `speedup`: over the
    original, measured there.
    """

    folder: Annotated[str, FOLDER]
    manifest_sha256: Annotated[str, SHA256]
    agreement: Score
    memory_bytes: Count
    latencies: tuple[BatchLatency, ...]
    accuracy: Score | None = None
    target: Target | None = None
    verdict: Verdict = "none"
    speedup: Positive | None = None

    @property
    def name(self) -> str:
        return self.folder.removeprefix(f"{RUNGS}/")

    @property
    def batches(self) -> tuple[int, ...]:
        return tuple(row.batch for row in self.latencies)

    def at(self, batch: int) -> BatchLatency:
        """The latency of `batch`, or of the nearest measured size that is not larger."""
        smaller = [row for row in self.latencies if row.batch <= batch]
        return smaller[-1] if smaller else self.latencies[0]


@dataclass(frozen=True)
class CascadeRecord:
    """Answers of rung `low` whose margin is under `threshold` are given by rung `high` instead.

    `accuracy` and `share` (of what went up) were seen on the `examples` it was calibrated on;
    `max_drop`: how far below `high` its accuracy may lie.
    """

    low: Count
    high: Count
    threshold: Annotated[float, Within(0.0)]
    max_drop: Fraction
    accuracy: Fraction
    share: Fraction
    examples: Count


@dataclass(frozen=True)
class LadderRecord:
    """Rungs from the most accurate, the original, to the fastest.

    `memory_bytes`: all rungs loaded together, beside that of the original alone. `left_out`: rungs
    that were asked for and are not there, with the reason. `batch`: examples of a forward pass that
    the rungs were tuned for.
    """

    machine: Machine
    rungs: tuple[Rung, ...]
    metric: str | None = None
    cascades: tuple[CascadeRecord, ...] = ()
    version: str = ""
    created: str = ""
    source: str = ""
    batch: Annotated[int, Within(1, MAX_BATCH)] = 1
    memory_bytes: Count | None = None
    original_memory_bytes: Count | None = None
    left_out: tuple[LeftAlone, ...] = ()
    seconds: Time = 0.0
    format_version: int = LADDER_VERSION

    @property
    def memory_ratio(self) -> float | None:
        """Memory of all rungs over the original's; None where it was not measured, or where the
        original is so small that pages and Python's objects are what was measured."""
        if self.memory_bytes is None or (self.original_memory_bytes or 0) < MEMORY_FLOOR:
            return None
        assert self.original_memory_bytes is not None
        return self.memory_bytes / self.original_memory_bytes

    @property
    def scores(self) -> tuple[float, ...]:
        """A worth for each rung: its accuracy, or its agreement where one has no accuracy."""
        known = [rung.accuracy for rung in self.rungs if rung.accuracy is not None]
        if len(known) == len(self.rungs):
            return tuple(known)
        return tuple(rung.agreement for rung in self.rungs)

    @property
    def score_name(self) -> str:
        """Of that worth, for people."""
        known = all(rung.accuracy is not None for rung in self.rungs)
        return (self.metric or "accuracy") if known else "agreement"


def ladder_to_json(record: LadderRecord) -> str:
    return json.dumps(to_json(record), indent=1)


def ladder_from_json(text: str, where: str = LADDER) -> LadderRecord:
    """The record in `text`. Raises ArtifactError naming the first thing that is wrong with it."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"`{where}` can't be read: {first_line(error)}") from error
    version = data.get("format_version") if isinstance(data, Mapping) else None
    if version != LADDER_VERSION:
        raise ArtifactError(
            f"`{where}` has format version {str(version)[:20]}; this modelspeed reads "
            f"{LADDER_VERSION}."
        )
    record = from_json(LadderRecord, data, where)
    if wrong := _wrong(record):
        raise ArtifactError(f"`{where}` {wrong}.")
    return record


def _wrong(record: LadderRecord) -> str:
    """The sentence's end that says how the parts do not fit each other; empty if they do."""
    if not 1 <= len(record.rungs) <= MAX_RUNGS:
        return f"has {len(record.rungs)} rungs; it must have 1 to {MAX_RUNGS}"
    for rung in record.rungs:
        if not rung.latencies or any(not row.samples_ms for row in rung.latencies):
            return f"has no measured latency for `{rung.folder}`"
        if list(rung.batches) != sorted(set(rung.batches)):
            return f"has batch sizes of `{rung.folder}` that do not rise"
    if len({rung.folder for rung in record.rungs}) < len(record.rungs):
        return "names one folder for two rungs"
    for cascade in record.cascades:
        if max(cascade.low, cascade.high) >= len(record.rungs) or cascade.low == cascade.high:
            return f"has a cascade from rung {cascade.low} to {cascade.high}, which are not there"
    return ""
