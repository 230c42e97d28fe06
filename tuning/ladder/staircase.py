"""Latency of several rungs at batch 1, 2, 4 ... until larger ones raise no throughput."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from torch import nn
from torch.fx import GraphModule

from ...backends.readiness import runner
from ...checkpoints.artifact import LoadedArtifact
from ...checkpoints.samples import at_batch, draw_inputs
from ...core.errors import MeasureError
from ...core.json_values import JsonObject
from ...core.records import Target
from ...graph.capture import has_dynamic_batch
from ...profiling.gate import working
from ...profiling.timer import measure_interleaved
from ...runtime.load import Opened

GROWS = 1.05  # times the best throughput so far: a larger batch is worth a look at the next
PATIENCE = 2  # sizes in a row that gain less: one may be a moment's disturbance
MOST_MS = 2000.0  # of one call
LARGEST = 1024
SAMPLES = 2000  # of each rung and size that are kept, evenly picked
CELL_SECONDS = (0.2, 4.0)  # of one rung at one size
CELLS = 8  # sizes that the time is planned for


@dataclass
class TimedRung:
    """`sizes`: that its graph can run, None for any."""

    module: nn.Module
    specs: Sequence[JsonObject]
    sizes: tuple[int, ...] | None = None
    samples: dict[int, tuple[float, ...]] = field(default_factory=dict)
    stalled: int = 0  # sizes in a row that gained too little
    ended: bool = False

    @classmethod
    def of(cls, module: nn.Module, graph: GraphModule, specs: Sequence[JsonObject]) -> TimedRung:
        shown = draw_inputs(specs, 0)
        return cls(module, specs, None if has_dynamic_batch(graph, shown) else (shown.batch,))

    def takes(self, size: int) -> bool:
        return not self.ended and (self.sizes is None or size in self.sizes)

    def saw(self, size: int, row: Sequence[float]) -> None:
        """Keep samples of a size, and stop after some that gain too little."""
        best = max((b / median(ms) for b, ms in self.samples.items()), default=0.0)
        self.samples[size] = tuple(round(ms, 6) for ms in row[:: -(-len(row) // SAMPLES)])
        self.stalled = 0 if size / median(row) >= GROWS * best else self.stalled + 1
        self.ended = self.stalled >= PATIENCE or median(row) > MOST_MS


def table_of(
    opened: Sequence[Opened],
    artifacts: Sequence[LoadedArtifact],
    target: Target,
    seconds: float,
    seed: int,
) -> list[dict[int, tuple[float, ...]]]:
    """Samples (ms) by batch size, a table for each rung; all that run at a size are interleaved.

    Raises MeasureError where not even one size can be measured.
    """
    rungs = [
        TimedRung.of(one.module, one.graph, artifact.manifest["inputs"])
        for one, artifact in zip(opened, artifacts, strict=True)
    ]
    cell = min(CELL_SECONDS[1], max(CELL_SECONDS[0], seconds / (CELLS * len(rungs))))
    deadline = working() + seconds
    powers = {1 << i for i in range(LARGEST.bit_length())}
    fixed = {size for rung in rungs for size in rung.sizes or ()}
    for size in sorted(powers | {target.batch} | fixed):
        late = working() > deadline and size > target.batch
        row = [] if late else [rung for rung in rungs if rung.takes(size)]
        if row and not _timed(row, size, target, cell, seed):
            break
        for rung in rungs if size < target.batch else ():
            rung.ended = False  # the size that it was tuned for is always measured
    for rung in rungs:
        if not rung.samples:
            raise MeasureError("a rung runs at no batch size, so the ladder can't be measured")
    return [rung.samples for rung in rungs]


def _timed(row: list[TimedRung], size: int, target: Target, cell: float, seed: int) -> bool:
    """False if this size, unlike a smaller one, is too much for the machine."""
    runs = []
    for rung in row:
        inputs = draw_inputs(at_batch(rung.specs, size), seed).map(lambda x: x.to(target.device))
        runs.append(runner(rung.module, inputs))
    try:
        found = measure_interleaved(
            runs, max_seconds=cell, min_seconds=cell, device=target.device, seed=seed, batch=size
        )
    except (MeasureError, RuntimeError, MemoryError):
        if not row[0].samples:
            raise
        return False
    for rung, latency in zip(row, found, strict=True):
        rung.saw(size, latency.samples_ms)
    return True
