"""Latency of calls: warm up until steady, then sample in random-interleaved blocks."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Protocol

import torch

from ..core.errors import MeasureError
from ..core.records import Latency, Notice
from . import notices
from .gate import alone
from .machine import usable_cores
from .statistics import half_width, percentile_interval, samples_needed

Run = Callable[[], object]
MAX_SAMPLES = 5000  # raw samples go into the record
WARM_WINDOW = 5
STRETCH = 6.0  # the time bound gives way this far for the samples a percentile can't do without
BLOCK_MS = 60.0
SETTLE_MS = 20.0  # the first calls after a switch find the other's data in the caches


class Clock(Protocol):
    """`time` runs once and returns ms; `now` is in seconds; `load` may be unknown."""

    def time(self, run: Run) -> float: ...

    def now(self) -> float: ...

    def load(self) -> notices.Load | None: ...


class WallClock:
    def time(self, run: Run) -> float:
        start = time.perf_counter_ns()
        run()
        return (time.perf_counter_ns() - start) / 1e6

    def now(self) -> float:
        return time.perf_counter()

    def load(self) -> notices.Load | None:
        return notices.read_load()


class CudaClock:
    """Device time between two events, launch gaps included.

    The device is idle when the first event is recorded, so work queued earlier isn't counted.
    """

    def __init__(self, device: str = "cuda") -> None:
        self._device = torch.device(device)

    def time(self, run: Run) -> float:
        with torch.cuda.device(self._device):
            start, end = _event(), _event()
            torch.cuda.synchronize()
            start.record()
            run()
            end.record()
            end.synchronize()
            return float(start.elapsed_time(end))

    def now(self) -> float:
        return time.perf_counter()

    def load(self) -> notices.Load | None:
        return None


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


def clock_for(device: str) -> Clock:
    return CudaClock(device) if torch.device(device).type == "cuda" else WallClock()


@dataclass(frozen=True)
class _Plan:
    percentile: float
    seconds: float  # for all runs together
    least: float
    needed: int
    block: int
    settle: int  # calls after each switch that don't count


def measure(
    run: Run,
    *,
    percentile: float = 50.0,
    clock: Clock | None = None,
    max_seconds: float = 10.0,
    min_seconds: float = 0.5,
    device: str = "cpu",
) -> Latency:
    """Latency (ms) of one call. Options and errors as in `measure_interleaved`."""
    return measure_interleaved(
        [run],
        percentile=percentile,
        clock=clock,
        max_seconds=max_seconds,
        min_seconds=min_seconds,
        device=device,
    )[0]


@alone()  # in a batch, the others stand still meanwhile
def measure_interleaved(
    runs: Sequence[Run],
    *,
    percentile: float = 50.0,
    clock: Clock | None = None,
    max_seconds: float = 10.0,
    min_seconds: float = 0.5,
    device: str = "cpu",
    seed: int = 0,
) -> list[Latency]:
    """Latencies (ms) of several calls under the same conditions; bounds in seconds per run.

    In every round each run gets one block of the same size, in random order, so sample i of one
    run and sample i of another were taken at nearly the same moment. Stops when the 95 % interval
    of every run's percentile is within 1 %, or at the bound. Grad mode and threads are the
    caller's. Raises MeasureError when the percentile can't get its samples in six times the bound.
    """
    needed = samples_needed(percentile)
    if not runs:
        raise MeasureError("There is nothing to measure: `runs` is empty.")
    clock = clock or clock_for(device)
    # Every run is warm before the first sample: clocks rise and kernels are picked by then.
    warm = [_warm_up(run, clock, max_seconds / 5) for run in runs]
    slowest = max(w.call_ms for w in warm)
    _refuse_hopeless(percentile, needed, slowest, max_seconds)
    plan = _Plan(
        percentile=percentile,
        seconds=max_seconds * len(runs),
        least=min(min_seconds, max_seconds) * len(runs),
        needed=needed,
        block=max(2, min(20, round(BLOCK_MS / max(slowest, 1e-6)))),
        settle=max(1, min(4, round(SETTLE_MS / max(slowest, 1e-6)))),
    )
    before = clock.load()
    with _no_garbage_collection():
        rows, seconds = _sample(runs, clock, plan, random.Random(seed))
    busy = notices.cpu_contention(before, clock.load())
    on_cpu = torch.device(device).type == "cpu"
    crowded = (
        notices.threads_over_cores(torch.get_num_threads(), usable_cores()) if on_cpu else None
    )
    return [
        _latency(row, plan, seconds, [notices.cold(w.steady, w.seconds), busy, crowded])
        for row, w in zip(rows, warm, strict=True)
    ]


@dataclass(frozen=True)
class _Warm:
    call_ms: float
    steady: bool
    seconds: float


def _warm_up(run: Run, clock: Clock, seconds: float) -> _Warm:
    """Until a window of calls is no longer 3 % faster than the best before; then it's steady."""
    start = clock.now()
    best, windows = float("inf"), 0
    while True:
        current = median(_window(run, clock, start + seconds))
        windows += 1
        spent = clock.now() - start
        if current > 0.97 * best:
            return _Warm(current, True, spent)
        best = current
        if spent >= seconds:
            # One window shows no trend, so a slow model isn't called cold for it.
            return _Warm(current, windows == 1, spent)


def _window(run: Run, clock: Clock, stop: float) -> list[float]:
    times = [clock.time(run), clock.time(run)]
    while len(times) < WARM_WINDOW and clock.now() < stop:
        times.append(clock.time(run))
    return times[1:]  # the very first call builds buffers and picks kernels


def _refuse_hopeless(percentile: float, needed: int, call_ms: float, max_seconds: float) -> None:
    seconds = needed * 1.5 * call_ms / 1e3
    if seconds > STRETCH * max_seconds:
        raise MeasureError(
            f"The percentile `{percentile:g}` needs {needed} samples, about {seconds:.0f} s at "
            f"{call_ms:.0f} ms a call; at most {STRETCH * max_seconds:.0f} s are allowed. "
            + (
                "Use a smaller `--batch`."
                if percentile == 50
                else "Use a smaller `--batch`, or ask for `--percentile 50`."
            )
        )


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
                for _ in range(plan.settle):
                    clock.time(runs[index])
            rows[index].extend(clock.time(runs[index]) for _ in range(plan.block))
        count, seconds = len(rows[0]), clock.now() - start
        # First the samples that the percentile can't do without, whatever the time: a p99 of 50
        # samples would be their maximum.
        if count < plan.needed:
            continue
        if seconds >= plan.seconds or count >= max(MAX_SAMPLES, plan.needed):
            return rows, seconds
        if count >= check_at and seconds >= plan.least:
            # All of them or none: runs that stop at different moments could not be paired.
            if all(_tight(row, plan.percentile) for row in rows):
                return rows, seconds
            check_at = int(count * 1.1) + 1  # sorting after every block would disturb the caches


def _tight(row: Sequence[float], percentile: float) -> bool:
    return half_width(*percentile_interval(row, percentile)) <= notices.WIDTH


def _latency(
    row: Sequence[float], plan: _Plan, seconds: float, shared: list[Notice | None]
) -> Latency:
    interval = percentile_interval(row, plan.percentile)
    noisy = notices.noisy(row, interval, plan.percentile)
    candidates = [
        noisy,
        notices.time_bound(len(row), seconds, plan.seconds) if noisy else None,
        notices.drift(row, plan.percentile),
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
