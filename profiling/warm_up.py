"""Calls until they are as fast as they get; and waiting, where others keep the machine busy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import median

import torch

from ..core.errors import MeasureError
from ..core.records import Notice
from . import notices
from .busy import by_whom
from .clocks import Clock, Run, wake
from .gate import alone
from .patience import OF_THIS_PROCESS

WINDOW = 5
STRETCH = 6.0  # the time bound gives way this far for the samples a percentile can't do without
LEAST_ALLOWED = 60.0  # seconds for those samples, however slow a call is


def warmed(
    runs: Sequence[Run], clock: Clock, needed: int, max_seconds: float, p: float, batch: int
) -> list[Warm]:
    """Every run, warm before the first sample: clocks rise and kernels are picked by then.

    Where calls take too long while others keep the machine busy, it waits for them to end.
    """
    allowed, busy = max(STRETCH * max_seconds, LEAST_ALLOWED), None
    for _ in chain((0.0,), OF_THIS_PROCESS.pauses(clock.sleep)):
        with alone():
            before = clock.load()
            wake(runs[0], clock)
            warm = [_warm_up(run, clock, max_seconds / 5) for run in runs]
            busy = notices.cpu_contention(before, clock.load())
        slowest = max(w.call_ms for w in warm)
        if busy is None or needed * 1.5 * slowest / 1e3 <= allowed:
            break
    _refuse_hopeless(p, needed, slowest, allowed, busy, batch)
    return warm


@dataclass(frozen=True)
class Warm:
    call_ms: float
    steady: bool
    seconds: float


def _warm_up(run: Run, clock: Clock, seconds: float) -> Warm:
    """Until a window of calls is no longer 3 % faster than the best before; then it's steady."""
    start = clock.now()
    best, windows = float("inf"), 0
    while True:
        current = median(_window(run, clock, start + seconds))
        windows += 1
        spent = clock.now() - start
        if current > 0.97 * best:
            return Warm(current, True, spent)
        best = current
        if spent >= seconds:
            # One window shows no trend, so a slow model isn't called cold for it.
            return Warm(current, windows == 1, spent)


def _window(run: Run, clock: Clock, stop: float) -> list[float]:
    times = [clock.time(run), clock.time(run)]
    while len(times) < WINDOW and clock.now() < stop:
        times.append(clock.time(run))
    return times[1:]  # the very first call builds buffers and picks kernels


def _refuse_hopeless(
    p: float, needed: int, call_ms: float, allowed: float, busy: Notice | None, batch: int
) -> None:
    seconds = needed * 1.5 * call_ms / 1e3
    if seconds <= allowed:
        return
    text = (
        f"The percentile `{p:g}` needs {needed} samples, about {seconds:.0f} s at "
        f"{call_ms:.0f} ms a call; at most {allowed:.0f} s are allowed."
    )
    if busy is None:
        raise MeasureError(f"{text} {notices.cheaper(p, batch)}".strip())
    who = by_whom() or busy.seen.rstrip(".")
    spin = torch.get_num_threads() > 1
    raise MeasureError(
        f"{text} The machine is too busy: {who}. Run again when it is quiet"
        + (
            ", or with `--threads 1`: threads that wait for each other suffer most."
            if spin
            else "."
        )
    )
