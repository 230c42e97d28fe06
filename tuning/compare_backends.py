"""One variant under every kind of runtime, interleaved, with what it takes to make it ready."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import nn
from torch.fx import GraphModule

from ..backends.agreement import same_answers
from ..backends.readiness import runner
from ..backends.registry import PLAIN, blob_of, is_compiled, ready
from ..core.errors import MeasureError
from ..core.files import PACKAGE
from ..core.records import Latency, LeftAlone, RuntimeCost
from ..profiling.closeness import expected
from ..profiling.statistics import compare
from ..profiling.timer import measure_interleaved
from .session import Bench

SECONDS = 3.0


@dataclass(frozen=True)
class Measured:
    """`seconds` to get ready; `error` of the outputs, relative to the plain graph's."""

    latency: Latency
    seconds: float
    error: float


def compile_where_faster(bench: Bench, module: GraphModule) -> None:
    """Where `--runtime` asks for it: compile `module`, and let it run so from here on if
    that measures faster than the runtime chosen before. The figures go into `bench.compared`."""
    asked = bench.job.target.runtime
    if not is_compiled(asked):
        return
    bench.talk.stage("compiling")
    usual = bench.runtime
    rows = measured(bench, module, (PLAIN, usual, asked))
    if {asked, usual} <= rows.keys():
        before, after = rows[usual].latency, rows[asked].latency
        found = compare(before.samples_ms, after.samples_ms, bench.job.target.percentile)
        if found.finding == "faster":
            bench.runtime = asked
    if bench.runtime != asked:
        bench.package, bench.unpackaged = None, ()
    bench.compared = costs(rows, bench.runtime)


def measured(bench: Bench, module: GraphModule, names: tuple[str, ...]) -> dict[str, Measured]:
    """By runtime. What does not compile, or computes something else, is left out and named."""
    runs: dict[str, tuple[nn.Module, float, float]] = {}
    outputs = expected(module, bench.probes)
    for name in dict.fromkeys(names):
        started = time.monotonic()
        try:
            with torch.no_grad():
                made = _made(bench, module, name)
            took = time.monotonic() - started
            if isinstance(made, str):
                raise MeasureError(made)
            runs[name] = (made, took, same_answers(made, outputs, name).error)
        except MeasureError as error:
            bench.leave_out(name, str(error))
    rows = measure_interleaved(
        [runner(made, bench.inputs) for made, *_ in runs.values()],
        percentile=bench.job.target.percentile,
        max_seconds=SECONDS if bench.job.target.percentile <= 90 else 20.0,
        device=bench.device,
    )
    return {
        name: Measured(row, took, error)
        for (name, (_, took, error)), row in zip(runs.items(), rows, strict=True)
    }


def _made(bench: Bench, module: GraphModule, name: str) -> nn.Module | str:
    """Compiled ahead of time where that works, so that what is measured is what is stored."""
    if not is_compiled(name):
        return ready(module, bench.inputs, name)
    bench.package, bench.unpackaged = None, ()
    try:
        bench.package = blob_of(module, bench.inputs, name)
    except MeasureError as error:
        bench.talk.note(f"{error}; it is compiled in the process instead")
        bench.unpackaged = (LeftAlone(PACKAGE, f"{error}; `load` compiles instead"),)
    return ready(module, bench.inputs, name, bench.package)


def costs(rows: dict[str, Measured], chosen: str) -> tuple[RuntimeCost, ...]:
    return tuple(
        RuntimeCost(name, row.latency.value_ms, row.latency.low_ms, row.latency.high_ms,
                    round(row.seconds, 3), name == chosen, row.error)
        for name, row in rows.items()
    )  # fmt: skip
