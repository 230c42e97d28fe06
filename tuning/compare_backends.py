"""One variant under every kind of runtime, interleaved, with what it takes to make it ready."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.fx import GraphModule

from ..backends.agreement import same_answers
from ..backends.readiness import runner
from ..backends.registry import (
    PLAIN,
    blob_of,
    is_compiled,
    is_last,
    keeps_runtime,
    last_names,
    ready,
)
from ..core.errors import MeasureError
from ..core.files import PACKAGE
from ..core.records import Latency, LeftAlone, RuntimeCost
from ..profiling.closeness import plain_outputs
from ..profiling.questions import Order
from ..profiling.timer import measure_interleaved
from ..search.variant import Variant
from .session import Session

SECONDS = 3.0  # of measuring: all of them for their order, or each for its figures


@dataclass(frozen=True)
class Measured:
    """`seconds` to get ready; `error` of the outputs, relative to the plain graph's."""

    latency: Latency
    seconds: float
    error: float


def under_fastest(session: Session, variant: Variant) -> Variant:
    """The variant under the runtime that measures fastest of those that are worth it, with what
    each took: those that run here without torch's kernels, candidates' and those that are too slow
    to prepare for these; and the one that `--runtime` asks for of the latter."""
    asked = session.job.target.runtime
    if is_last(asked):
        with session.time.compiling():
            return _compiled_where_faster(session, variant, asked)
    others = session.runtimes_to_try(variant.module, variant.runtime)
    if session.time.left >= session.time.final:
        late = last_names(variant.module, session.inputs, asked)
        others = (*others, *(name for name in late if session.exclusions.allows(name)))
    if not any(keeps_runtime(name) for name in others) or len(others) == 1:
        return variant
    with session.time.compiling():
        return _fastest_of(session, variant, others)


def _fastest_of(session: Session, variant: Variant, others: tuple[str, ...]) -> Variant:
    session.progress.stage("comparing runtimes")
    order, usual = Order(session.job.target.percentile), variant.runtime
    rows = measure_runtimes(session, variant.module, (PLAIN, usual, *others), order=order)
    names, fastest = list(rows), min(rows, key=lambda name: rows[name].latency.value_ms)
    if usual in rows and fastest != usual:  # what candidates were measured under stays for a tie
        comparison = order.comparison(names.index(usual), names.index(fastest))
        fastest = fastest if comparison.finding == "faster" else usual
    runtime = fastest if session.exclusions.allows(fastest) else session.trusted(usual)
    return replace(variant.under(runtime), runtime_costs=costs(rows, runtime))


def _compiled_where_faster(session: Session, variant: Variant, asked: str) -> Variant:
    session.progress.stage("compiling")
    usual = variant.runtime
    blob, left_out = _compiled_ahead(session, variant.module, asked)
    order = Order(session.job.target.percentile)
    rows = measure_runtimes(session, variant.module, (PLAIN, usual, asked), blob, order)
    names = list(rows)
    if {asked, usual} <= rows.keys():
        comparison = order.comparison(names.index(usual), names.index(asked))
        if comparison.finding == "faster":
            compiled = replace(variant, runtime=asked, blob=blob)
            left = (*variant.left_alone, *left_out)
            return replace(compiled, left_alone=left, runtime_costs=costs(rows, asked))
    runtime = session.trusted(usual)
    return replace(variant.under(runtime), runtime_costs=costs(rows, runtime))


def _compiled_ahead(
    session: Session, module: GraphModule, name: str
) -> tuple[bytes | None, tuple[LeftAlone, ...]]:
    """The module compiled ahead of time where that works, so that what is measured is stored."""
    try:
        with torch.no_grad():
            return blob_of(module, session.inputs, name), ()
    except MeasureError as error:
        session.progress.note(f"{error}; it is compiled in the process instead")
        return None, (LeftAlone(PACKAGE, f"{error}; `load` compiles instead"),)


def measure_runtimes(
    session: Session,
    module: GraphModule,
    names: tuple[str, ...],
    blob: bytes | None = None,
    order: Order | None = None,
) -> dict[str, Measured]:
    """By runtime, until `order` is known or else the figures are.

    What does not compile, or computes something else, is left out and named.
    """  # fmt: skip
    runs: dict[str, tuple[nn.Module, float, float]] = {}
    outputs = plain_outputs(module, session.probes)
    for name in dict.fromkeys(names):
        started = time.monotonic()
        try:
            with torch.no_grad():
                runnable = ready(module, session.inputs, name, blob if is_compiled(name) else None)
            took = time.monotonic() - started
            if isinstance(runnable, str):
                raise MeasureError(runnable)
            runs[name] = (runnable, took, same_answers(runnable, outputs, name).error)
        except MeasureError as error:
            session.exclusions.leave_out_runtime(name, str(error))
    rows = measure_interleaved(
        [runner(runnable, session.inputs) for runnable, *_ in runs.values()],
        percentile=session.job.target.percentile,
        max_seconds=_seconds(session, len(runs), order is not None),
        device=session.device,
        batch=session.job.target.batch,
        question=order,
    )
    return {
        name: Measured(row, took, error)
        for (name, (_, took, error)), row in zip(runs.items(), rows, strict=True)
    }


def _seconds(session: Session, count: int, ranks: bool) -> float:
    """For each of `count` runtimes. A tail percentile needs many samples; an order does not."""
    if not ranks:
        return SECONDS if session.job.target.percentile <= 90 else 20.0
    return SECONDS / max(1, count)


def costs(rows: dict[str, Measured], chosen: str) -> tuple[RuntimeCost, ...]:
    return tuple(
        RuntimeCost(name, row.latency.value_ms, row.latency.low_ms, row.latency.high_ms,
                    round(row.seconds, 3), name == chosen, row.error)
        for name, row in rows.items()
    )  # fmt: skip
