"""Runtimes ranked by measurement: the ones that a search tries its candidates under."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn
from torch.fx import GraphModule

from ..core.errors import MeasureError
from ..core.model_io import Inputs
from ..core.records import Latency, LeftAlone
from ..profiling.clocks import clock_for, pools_mix, settle
from ..profiling.closeness import PlainOutputs, plain_outputs
from ..profiling.gate import alone
from ..profiling.questions import Order
from ..profiling.timer import measure_interleaved
from .agreement import same_answers
from .readiness import runner
from .registry import PLAIN, candidate_names, prepare, ready

WORTH_TRYING = 1.5
WORTH_MEASURING = 2.0  # times the fastest, of the least of a few calls each
FEW, MANY, FEW_SECONDS = 4, 50, 0.1
TOGETHER = 1.5  # seconds of measuring, at most: of those that are alike any will do
ALIKE = 0.05  # which of two so near is tried first does not matter


@dataclass(frozen=True)
class RankedRuntimes:
    """Names of the runtimes worth trying, and those left out, with the reason.

    `quiet`: nothing else kept the machine busy meanwhile. `complete`: none failed by an exception,
    which may be one that passes, such as too little memory.
    """

    names: tuple[str, ...]
    left_out: tuple[LeftAlone, ...] = ()
    quiet: bool = True
    complete: bool = True

    @property
    def lasts(self) -> bool:
        """True if another run on this machine would find the same."""
        return self.quiet and self.complete


def rank_backends(
    module: GraphModule,
    inputs: Inputs,
    runtime: str,
    probes: Sequence[Inputs],
) -> RankedRuntimes:
    """The runtimes worth trying on variants of `module`, the one measured fastest first.

    Left out are those that do not work with this model; and of the fast ones those that give other
    outputs on `probes` than the plain graph.

    `plain` comes first unless another is measurably faster. A variant with other widths may run
    fastest under another one, so the second stays in where it is within 1.5x. Compiling takes too
    long for every variant: the last one is compiled (tuning/compare_backends.py).
    """
    if runtime == PLAIN:
        return RankedRuntimes((PLAIN,))
    modules: dict[str, nn.Module] = {PLAIN: prepare(module, inputs, PLAIN)}
    rows: list[LeftAlone] = []
    for name in candidate_names(module, inputs, runtime):
        runnable = ready(module, inputs, name)
        if isinstance(runnable, str):
            rows.append(LeftAlone(runtime_row(name), runnable))
        else:
            modules[name] = runnable
    complete = not rows
    measured, faster_than_plain = _measured(_worth_measuring(modules, inputs), inputs)
    quiet = all(n.code != "cpu_contention" for row in measured.values() for n in row.notices)
    outputs = plain_outputs(module, probes) if set(measured) - {PLAIN} else None
    names: list[str] = []
    for name in sorted(measured, key=lambda name: measured[name].value_ms):
        if len(names) < 2 and _is_right(name, modules[name], outputs, rows):
            names.append(name)
    if PLAIN in measured and (not names or names[0] not in faster_than_plain):
        names = [PLAIN, *(n for n in names if n != PLAIN)][:2]
    limit = WORTH_TRYING * min((measured[n].value_ms for n in names), default=0.0)
    return RankedRuntimes(
        tuple(n for n in names if measured[n].value_ms <= limit) or (PLAIN,),
        tuple(rows),
        quiet,
        complete,
    )


def _is_right(
    name: str, runnable: nn.Module, outputs: PlainOutputs | None, rows: list[LeftAlone]
) -> bool:
    """True if it gives the plain graph's outputs; else it has a row."""
    if name == PLAIN or outputs is None:
        return True
    try:
        same_answers(runnable, outputs, name)
    except MeasureError as error:
        rows.append(LeftAlone(runtime_row(name), str(error)))
        return False
    return True


def _worth_measuring(modules: dict[str, nn.Module], inputs: Inputs) -> dict[str, nn.Module]:
    """Without those that take twice as long as the fastest, by the least of a few calls in turns.

    A slow moment of the machine would have to meet all calls of one and none of another.
    """
    clock = clock_for(str(inputs[0].device))
    runs = {name: runner(module, inputs) for name, module in modules.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    mixed = pools_mix(runs.values())
    with alone():
        started = clock.now()
        while (done := len(times[PLAIN])) < FEW or (
            done < MANY and clock.now() - started < FEW_SECONDS
        ):
            for name, run in runs.items():
                if mixed:
                    settle(run, clock)
                times[name].append(clock.time(run))
    best = {name: min(row) for name, row in times.items()}
    limit = WORTH_MEASURING * min(best.values())
    return {name: module for name, module in modules.items() if best[name] <= limit}


def _measured(
    modules: dict[str, nn.Module], inputs: Inputs
) -> tuple[dict[str, Latency], frozenset[str]]:
    """Latencies by name, and the names of those that are measurably faster than `plain`."""
    order = Order(50.0, ALIKE)
    latencies = measure_interleaved(
        [runner(m, inputs) for m in modules.values()],
        percentile=50.0,
        max_seconds=TOGETHER / len(modules),
        min_seconds=0.0,
        device=str(inputs[0].device),
        batch=inputs.batch,
        question=order,
    )
    measured = dict(zip(modules, latencies, strict=True))
    faster = (n for n in measured if n != PLAIN and _is_faster(n, measured, order))
    return measured, frozenset(faster)


def _is_faster(name: str, measured: dict[str, Latency], order: Order) -> bool:
    if PLAIN not in measured:
        return True
    if not all(row.samples_ms for row in measured.values()):  # as figures alone
        return measured[name].high_ms < measured[PLAIN].low_ms
    names = list(measured)
    return order.comparison(names.index(PLAIN), names.index(name)).finding == "faster"


def runtime_row(name: str) -> str:
    """The name in a report of a runtime that is left out."""
    return f"runtime `{name}`"
