"""One variant under every kind of runtime, interleaved, with what it takes to make it ready."""

from __future__ import annotations

import time

import torch
from torch import nn
from torch.fx import GraphModule

from ..checkpoints.artifact import PACKAGE
from ..core.errors import MeasureError
from ..core.records import Latency, LeftAlone, RuntimeCost
from ..profiling.statistics import compare
from ..profiling.timer import measure_interleaved
from .bench import Bench
from .compiling import INDUCTOR
from .packages import build
from .runtimes import PLAIN, left_out, ready, runner

SECONDS = 3.0


def compile_where_faster(bench: Bench, module: GraphModule) -> None:
    """Where `--runtime inductor` asks for it: compile `module`, and let it run so from here on if
    that measures faster than the runtime chosen before. The figures go into `bench.compared`."""
    if bench.job.target.runtime != INDUCTOR:
        return
    bench.talk.stage("compiling")
    usual = bench.runtime
    rows = measured(bench, module, (PLAIN, usual, INDUCTOR))
    if {INDUCTOR, usual} <= rows.keys():
        before, after = rows[usual][0], rows[INDUCTOR][0]
        found = compare(before.samples_ms, after.samples_ms, bench.job.target.percentile)
        if found.finding == "faster":
            bench.runtime = INDUCTOR
    if bench.runtime != INDUCTOR:
        bench.package, bench.unpackaged = None, ()
    bench.compared = costs(rows, bench.runtime)


def measured(
    bench: Bench, module: GraphModule, names: tuple[str, ...]
) -> dict[str, tuple[Latency, float]]:
    """By runtime: latency, and seconds to get ready. What can't run here is noted, left out."""
    made: dict[str, tuple[nn.Module, float]] = {}
    for name in dict.fromkeys(names):
        started = time.monotonic()
        with torch.no_grad():
            found = _made(bench, module, name)
        if isinstance(found, str):
            bench.talk.note(left_out(name, found))
        else:
            made[name] = (found, time.monotonic() - started)
    rows = measure_interleaved(
        [runner(module, bench.inputs) for module, _ in made.values()],
        percentile=bench.job.target.percentile,
        max_seconds=SECONDS if bench.job.target.percentile <= 90 else 20.0,
        device=bench.device,
    )
    return {name: (row, took) for (name, (_, took)), row in zip(made.items(), rows, strict=True)}


def _made(bench: Bench, module: GraphModule, name: str) -> nn.Module | str:
    """Compiled ahead of time where that works, so that what is measured is what is stored."""
    if name != INDUCTOR:
        return ready(module, bench.inputs, name)
    bench.package, bench.unpackaged = None, ()
    try:
        bench.package = build(module, bench.inputs)
    except MeasureError as error:
        bench.talk.note(f"{error}; it is compiled in the process instead")
        bench.unpackaged = (LeftAlone(PACKAGE, f"{error}; `load` compiles instead"),)
    return ready(module, bench.inputs, name, bench.package)


def costs(rows: dict[str, tuple[Latency, float]], chosen: str) -> tuple[RuntimeCost, ...]:
    return tuple(
        RuntimeCost(name, row.value_ms, row.low_ms, row.high_ms, round(took, 3), name == chosen)
        for name, (row, took) in rows.items()
    )
