"""Latency of calls: warm up until steady, then sample in random-interleaved blocks."""

from __future__ import annotations

import gc
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from ..core.errors import MeasureError
from ..core.records import Latency, Notice
from . import notices
from .clocks import SPIN_MS, Clock, Run, clock_for, pools_mix
from .gate import alone
from .gpu_state import gpu_slowed, read_gpu
from .machine import usable_cores
from .questions import Figures, Question
from .statistics import percentile_interval, samples_needed
from .warm_up import warmed

MAX_SAMPLES = 5000  # raw samples go into the record
BLOCK_MS = 60.0
ROUND_MS = 25.0  # a question wants many short rounds
MAX_SETTLING = 500
SETTLE_MS = 20.0  # the first calls after a switch find the other's data in the caches


@dataclass(frozen=True)
class _Plan:
    percentile: float
    seconds: float  # for all runs together
    least: float
    needed: int
    block: int
    settle: tuple[int, ...]  # calls of each run after a switch that don't count
    question: Question
    batch: int


def measure(
    run: Run,
    *,
    percentile: float = 50.0,
    clock: Clock | None = None,
    max_seconds: float = 10.0,
    min_seconds: float = 0.5,
    device: str = "cpu",
    batch: int = 1,
) -> Latency:
    """Latency (ms) of one call. Options and errors as in `measure_interleaved`."""
    return measure_interleaved(
        [run],
        percentile=percentile,
        clock=clock,
        max_seconds=max_seconds,
        min_seconds=min_seconds,
        device=device,
        batch=batch,
    )[0]


def measure_interleaved(
    runs: Sequence[Run],
    *,
    percentile: float = 50.0,
    clock: Clock | None = None,
    max_seconds: float = 10.0,
    min_seconds: float = 0.5,
    device: str = "cpu",
    seed: int = 0,
    batch: int = 1,
    question: Question | None = None,
) -> list[Latency]:
    """Latencies (ms) of several calls under the same conditions; bounds in seconds per run.

    In every round each run gets one block of the same size, in random order, so sample i of one
    run and sample i of another were taken at nearly the same moment. Stops when `question` is
    answered (by default: the 95 % interval of every run's percentile is within 1 %, or out of
    reach), or at the bound. Grad mode and threads are the caller's.

    Raises MeasureError when the percentile can't get its samples in six times the bound or a
    minute, for all that it waited where others keep the machine busy. `batch` is for its advice.
    """
    needed = samples_needed(percentile)
    if not runs:
        raise MeasureError("There is nothing to measure: `runs` is empty.")
    clock = clock or clock_for(device)
    warm = warmed(runs, clock, needed, max_seconds, percentile, batch)
    slowest = max(w.call_ms for w in warm)
    plan = _Plan(
        percentile=percentile,
        seconds=max_seconds * len(runs),
        least=min(min_seconds, max_seconds) * len(runs),
        needed=needed,
        block=_calls(ROUND_MS if question else BLOCK_MS, slowest, 1 if question else 2, 20),
        settle=_settling(runs, [w.call_ms for w in warm]),
        question=question or Figures(percentile),
        batch=batch,
    )
    # In a batch, the others stand still meanwhile.
    with alone(), _no_garbage_collection():
        before = clock.load()
        rows, seconds = _sample(runs, clock, plan, random.Random(seed))
        after = clock.load()
        slowed = gpu_slowed(read_gpu(device))
    count = torch.get_num_threads() if torch.device(device).type == "cpu" else 1
    shared = (
        notices.cpu_contention(before, after, count),
        notices.threads_over_cores(count, usable_cores()),
        slowed,
    )
    return [
        _latency(row, plan, seconds, count, [notices.cold(w.steady, w.seconds), *shared])
        for row, w in zip(rows, warm, strict=True)
    ]


def _settling(runs: Sequence[Run], call_ms: Sequence[float]) -> tuple[int, ...]:
    """Calls after a switch that see what the run before left: its data in the caches, and its
    threads, where they are of another pool and not asleep yet."""
    least = _calls(SETTLE_MS, max(call_ms), 1, 4)
    if not pools_mix(runs):
        return (least,) * len(runs)
    return tuple(_calls(SPIN_MS, ms, least, MAX_SETTLING) for ms in call_ms)


def _calls(ms: float, call_ms: float, least: int, most: int) -> int:
    return max(least, min(most, round(ms / max(call_ms, 1e-6))))


def _sample(
    runs: Sequence[Run], clock: Clock, plan: _Plan, chance: random.Random
) -> tuple[list[list[float]], float]:
    rows: list[list[float]] = [[] for _ in runs]
    order = list(range(len(runs)))
    start = clock.now()
    check_at = plan.needed
    while True:
        # In random order, so that no run always meets what another leaves behind (heat, caches).
        chance.shuffle(order)
        for index in order:
            if len(runs) > 1:  # what the run before left in the caches is not this one's
                for _ in range(plan.settle[index]):
                    clock.time(runs[index])
            rows[index].extend(clock.time(runs[index]) for _ in range(plan.block))
        count, seconds = len(rows[0]), clock.now() - start
        # First the samples that the percentile can't do without, whatever the time: a p99 of 50
        # samples would be their maximum.
        if count < plan.needed:
            continue
        if seconds >= plan.seconds or count >= max(MAX_SAMPLES, plan.needed):
            plan.question.answered(rows, plan.block, 1.0)
            return rows, seconds
        if count >= check_at and seconds >= plan.least:
            # All of them or none: runs that stop at different moments could not be paired.
            if plan.question.answered(rows, plan.block, seconds / plan.seconds):
                return rows, seconds
            check_at = int(count * 1.1) + 1  # sorting after every block would disturb the caches


def _latency(
    row: Sequence[float], plan: _Plan, seconds: float, count: int, shared: list[Notice | None]
) -> Latency:
    interval = percentile_interval(row, plan.percentile)
    noisy = notices.noisy(row, interval, plan.percentile, count)
    bound = notices.time_bound(len(row), seconds, plan.seconds, plan.percentile, plan.batch)
    candidates = [
        noisy,
        bound if noisy else None,
        notices.drift(row, plan.percentile, count),
        *shared,
    ]
    return Latency(plan.percentile, *interval, tuple(row), tuple(n for n in candidates if n))


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    was_on = gc.isenabled()
    gc.collect()  # now, so that it does not begin within a sample
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
