"""Runtimes ranked by measurement: the ones that a search tries its candidates under."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from torch.fx import GraphModule

from ..core.errors import MeasureError
from ..core.model_io import Inputs
from ..core.records import LeftAlone
from ..profiling.closeness import plain_outputs
from ..profiling.timer import measure_interleaved
from .agreement import agreeing
from .readiness import runner
from .registry import PLAIN, candidate_names, prepare

WORTH_TRYING = 1.5


def rank_backends(
    module: GraphModule,
    inputs: Inputs,
    runtime: str,
    probes: Sequence[Inputs],
) -> tuple[tuple[str, ...], tuple[LeftAlone, ...]]:
    """Names of the runtimes worth trying on variants of `module`, the one measured fastest first.

    And those left out, with the reason: they do not work with this model, or give other outputs
    on `probes` than the plain graph.

    `plain` comes first unless another is measurably faster. A variant with other widths may run
    fastest under another one, so the second stays in where it is within 1.5x. Compiling takes too
    long for every variant: the last one is compiled (tuning/compare_backends.py).
    """
    if runtime == PLAIN:
        return (PLAIN,), ()
    modules: dict[str, nn.Module] = {PLAIN: prepare(module, inputs, PLAIN)}
    rows: list[LeftAlone] = []
    outputs = plain_outputs(module, probes)
    for name in candidate_names(module, inputs):
        try:
            modules[name] = agreeing(module, inputs, name, outputs)[0]
        except MeasureError as error:
            rows.append(LeftAlone(runtime_row(name), str(error)))
    return _worth_trying(modules, inputs), tuple(rows)


def _worth_trying(modules: dict[str, nn.Module], inputs: Inputs) -> tuple[str, ...]:
    device = str(inputs[0].device)
    latencies = measure_interleaved(
        [runner(m, inputs) for m in modules.values()],
        percentile=50.0,
        max_seconds=3.0,
        device=device,
    )
    measured = dict(zip(modules, latencies, strict=True))
    ranked = sorted(measured, key=lambda name: measured[name].value_ms)
    best = measured[ranked[0]]
    if best.high_ms >= measured[PLAIN].low_ms:
        ranked.remove(PLAIN)
        ranked.insert(0, PLAIN)
    limit = WORTH_TRYING * best.value_ms
    return tuple(n for n in ranked[:2] if measured[n].value_ms <= limit)


def runtime_row(name: str) -> str:
    """The name in a report of a runtime that is left out."""
    return f"runtime `{name}`"
