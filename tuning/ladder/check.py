"""A written ladder measured again: each rung, and whether their order still holds here."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

from ...backends.readiness import runner
from ...checkpoints.artifact import read_artifact
from ...checkpoints.ladders import read_ladder
from ...checkpoints.samples import at_batch, draw_inputs
from ...core.checks import Case, Check
from ...core.ladder_record import LadderRecord
from ...core.progress import Progress
from ...core.records import Latency
from ...profiling.machine import fingerprint
from ...profiling.statistics import compare_samples
from ...profiling.timer import measure_interleaved
from ...runtime.load import open_artifact
from ..check import CheckRequest, check, elsewhere
from ..job import prepare_machine

SECONDS = 3.0  # of measuring the order, a rung
OUT_OF_ORDER = 3  # the exit code


def check_ladder(folder: Path, requests: Sequence[CheckRequest], progress: Progress) -> Check:
    """All cases of each rung, named after it, and `order`. `requests`: of the rungs, top first.

    Raises the errors of core/errors.py where one can't be found out.
    """
    record = read_ladder(folder)
    cases: list[Case] = []
    for rung, request in zip(record.rungs, requests, strict=True):
        progress.stage(f"rung `{rung.name}`")
        found = check(request, progress)
        cases += [_of_rung(rung.name, case) for case in found.cases]
    progress.stage("comparing the rungs")
    started = time.monotonic()
    rows = _interleaved(folder, record, requests)
    case = order_case([rung.name for rung in record.rungs], rows, record, requests[0].target.device)
    cases.append(replace(case, seconds=round(time.monotonic() - started, 2)))
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    target = replace(requests[0].target, ms=None, speedup=None, fastest=False)
    return Check(str(folder), now, version("modelspeed"), fingerprint(target.device), target,
                 tuple(cases), rows[0])  # fmt: skip


def _of_rung(name: str, case: Case) -> Case:
    """Named after the rung, without the advice to give it a target by a flag."""
    text = case.text.partition("; there is no target")[0]
    return replace(case, name=f"{name}: {case.name}", text=text)


def _interleaved(
    folder: Path, record: LadderRecord, requests: Sequence[CheckRequest]
) -> list[Latency]:
    target = replace(requests[0].target, batch=record.batch)
    prepare_machine(target, 0)
    runs = []
    for rung, request in zip(record.rungs, requests, strict=True):
        artifact = read_artifact(folder / rung.folder)
        specs = at_batch(artifact.manifest["inputs"], record.batch)
        ready = open_artifact(
            artifact, runtime=request.runtime, device=target.device,
            trust_compiled=request.trust_compiled,
        )  # fmt: skip
        runs.append(runner(ready.module, draw_inputs(specs, 0).map(lambda x: x.to(target.device))))
    return measure_interleaved(runs, max_seconds=SECONDS, device=target.device, batch=record.batch)


def order_case(
    names: Sequence[str], rows: Sequence[Latency], record: LadderRecord, device: str
) -> Case:
    """Each rung must be faster than the one above; where two can't be told apart it stays open."""
    times = ", ".join(
        f"{name} {row.value_ms:.3g} ms" for name, row in zip(names, rows, strict=True)
    )
    changed = elsewhere(record.machine, fingerprint(device))
    where = f"; it was measured elsewhere ({changed})" if changed else ""
    slower, alike = [], []
    for (high, above), (low, below) in pairwise(zip(names, rows, strict=True)):
        ratio = compare_samples(above.samples_ms, below.samples_ms, 50.0)
        if ratio.finding == "slower":
            slower.append(f"`{low}` is slower than `{high}`")
        elif ratio.finding != "faster":
            alike.append(f"`{low}` can't be told from `{high}`")
    if slower:
        return Case("order", "failed", f"{'; '.join(slower)}: {times}{where}", OUT_OF_ORDER)
    if alike:
        return Case("order", "inconclusive", f"{'; '.join(alike)}: {times}{where}", 5)
    return Case("order", "passed", f"each rung is faster than the one above: {times}{where}")
