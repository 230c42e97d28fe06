"""Clocks that time one call: the wall's, or a GPU's own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Protocol

import torch

from . import notices

Run = Callable[[], object]
POOL = "thread_pool"  # attribute of a run or a module: whose threads it uses, torch's if none
SPIN_MS = 12.0  # threads of a pool wait actively for so long after a call (libgomp here: 7 ms)


class Clock(Protocol):
    """`time` runs once and returns ms; `now` and `sleep` are in seconds; `load` may be unknown."""

    def time(self, run: Run) -> float: ...

    def now(self) -> float: ...

    def load(self) -> notices.Load | None: ...

    def sleep(self, seconds: float) -> None: ...


class WallClock:
    def time(self, run: Run) -> float:
        start = time.perf_counter_ns()
        run()
        return (time.perf_counter_ns() - start) / 1e6

    def now(self) -> float:
        return time.perf_counter()

    def load(self) -> notices.Load | None:
        return notices.read_load()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


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

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


def pool_of(run: object) -> str:
    """The thread pool that a run or a module works on; empty for torch's own."""
    return str(getattr(run, POOL, ""))


def pools_mix(runs: Iterable[object]) -> bool:
    """True if calls in turns would meet threads of another pool, which still wait actively.

    On two cores a call of OpenVINO takes three times as long right after one of torch's.
    """
    return torch.get_num_threads() > 1 and len({pool_of(run) for run in runs}) > 1


def settle(run: Run, clock: Clock, ms: float = SPIN_MS) -> None:
    """Call `run` untimed until the threads of other pools sleep."""
    end = clock.now() + ms / 1e3
    while clock.now() < end:
        clock.time(run)


def clock_for(device: str) -> Clock:
    return CudaClock(device) if torch.device(device).type == "cuda" else WallClock()
