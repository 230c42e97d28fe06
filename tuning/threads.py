"""The thread count of a run; for `--threads auto` the one this model runs fastest with here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.fx import GraphModule

from ..backends.readiness import runner
from ..backends.registry import PLAIN, first_ready, furthest_lowering
from ..core.model_io import Inputs
from ..core.progress import Progress
from ..core.records import Latency, Notice, Target
from ..profiling.machine import threads, usable_cores
from ..profiling.timer import measure_interleaved

SECONDS = 1.5
SAME = 1.02  # of the fastest: fewer threads that take no longer leave the rest to others


@dataclass(frozen=True)
class ThreadChoice:
    """The count that a run takes for all that it compares, as its journal keeps it; 0 where
    nothing speaks against the usual one."""

    count: int = 0
    remarks: tuple[Notice, ...] = ()

    @staticmethod
    def is_open(target: Target) -> bool:
        """True if the user leaves it to the run."""
        return not target.threads and target.device.startswith("cpu")

    def used_by(self, target: Target) -> Target:
        """The target with it; this process uses it from here on."""
        if not self.count:
            return target
        torch.set_num_threads(self.count)
        return replace(target, threads=self.count)


def counts(cores: int) -> tuple[int, ...]:
    """Powers of two up to all cores."""
    return (*(2**n for n in range(cores.bit_length()) if 2**n < cores), cores)


def with_fastest(target: Target, module: nn.Module, inputs: Inputs, progress: Progress) -> Target:
    """The target with the count in it, which this process uses from here on; others as they are.

    Of a graph what is timed is the original after lossless work, since that's what variants are
    made of.
    """
    if not target.auto_threads or target.threads or not target.device.startswith("cpu"):
        return target
    progress.stage("choosing threads")
    with torch.no_grad():
        if isinstance(module, GraphModule):
            name = PLAIN if target.runtime == PLAIN else furthest_lowering(module, inputs) or PLAIN
            module = first_ready(module, inputs, (name,), progress.note)[1]
        rows = measure_by_threads(module, inputs)
    fastest = fewest(rows)
    times = ", ".join(f"{count}: {row.value_ms:.3g} ms" for count, row in rows.items())
    progress.note(f"`--threads auto` takes {fastest} ({times})")
    torch.set_num_threads(fastest)
    return replace(target, threads=fastest)


def measure_by_threads(module: nn.Module, inputs: Inputs) -> dict[int, Latency]:
    """Latency by thread count, interleaved."""
    call, tried = runner(module, inputs), counts(usable_cores())

    def with_threads(count: int) -> Callable[[], object]:
        def run() -> object:
            torch.set_num_threads(count)
            return call()

        return run

    with threads(0):  # what was set before comes back
        rows = measure_interleaved([with_threads(n) for n in tried], max_seconds=SECONDS)
    return dict(zip(tried, rows, strict=True))


def fewest(rows: dict[int, Latency]) -> int:
    """The least count that is as fast as the fastest."""
    best = min(row.value_ms for row in rows.values())
    return min(count for count, row in rows.items() if row.value_ms <= SAME * best)
