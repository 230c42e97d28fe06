"""Clocks that time one call: the wall's, or a GPU's own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Protocol

import torch

from . import notices
from .gpu_state import read_gpu

Run = Callable[[], object]
POOL = "thread_pool"  # attribute of a run or a module: whose threads it uses, torch's if none
# Seconds: between looks at a GPU's clock, at most, and where nobody tells it.
WAKE_LOOK, WAKE_MOST, WAKE_BLIND = 0.05, 2.0, 0.3
WAKE_STEADY = 1.02  # times the clock at the look before
# A spin that outlasts the queueing of a call, at the highest clock of today's GPUs.
LEAD_MS, MOST_LEAD_MS, CYCLES_PER_MS, TRIES = 0.2, 20.0, 2.0e6, 3
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

    The device is idle when the first event is recorded, so work queued earlier isn't counted. The
    events are the same for all calls: making one takes as long as a launch.
    """

    def __init__(self, device: str = "cuda") -> None:
        self._device = torch.device(device)
        self._events: tuple[torch.cuda.Event, torch.cuda.Event] | None = None

    def time(self, run: Run) -> float:
        with torch.cuda.device(self._device):
            start, end = self._pair()
            torch.cuda.synchronize()
            start.record()
            run()
            end.record()
            end.synchronize()
            return float(start.elapsed_time(end))

    def now(self) -> float:
        return time.perf_counter()

    def load(self) -> notices.Load | None:
        return notices.read_load()  # without a core, nothing is launched

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def wake(self, run: Run) -> None:
        """Call `run` until the GPU's clock has risen: an idle one runs at a sixth of it.

        Calls that look steady may all be at the low clock, so the driver is asked.
        """
        begun, seen = self.now(), 0.0
        while (spent := self.now() - begun) < WAKE_MOST:
            end = self.now() + WAKE_LOOK
            while self.now() < end:
                self.time(run)
            state = read_gpu(str(self._device), quick=True)
            if state is None and spent >= WAKE_BLIND:
                return
            if state is not None:
                if state.sm_mhz <= WAKE_STEADY * seen:
                    return
                seen = state.sm_mhz

    def _pair(self) -> tuple[torch.cuda.Event, torch.cuda.Event]:
        if self._events is None:
            self._events = _event(), _event()
            for event in self._events:
                event.record()  # which makes it
        return self._events


class QueuedCudaClock(CudaClock):
    """Device time of work that is queued before the device comes to it: kernels without launches.

    Between two events around a small kernel lies mostly the launch, which costs nothing where a
    CUDA graph launches all kernels at once. So the device spins first, for as long as the CPU needs
    to queue the call.
    """

    def __init__(self, device: str = "cuda") -> None:
        super().__init__(device)
        self._lead_ms = LEAD_MS

    def time(self, run: Run) -> float:
        with torch.cuda.device(self._device):
            start, end = self._pair()
            for _ in range(TRIES):
                torch.cuda.synchronize()
                torch.cuda._sleep(round(self._lead_ms * CYCLES_PER_MS))  # type: ignore[no-untyped-call]
                start.record()
                queued = time.perf_counter()
                run()
                end.record()
                queued = 1e3 * (time.perf_counter() - queued)
                end.synchronize()
                if queued < 0.8 * self._lead_ms or self._lead_ms >= MOST_LEAD_MS:
                    break
                self._lead_ms = min(MOST_LEAD_MS, 2.0 * queued)
            return float(start.elapsed_time(end))


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


def clock_of_kernels(device: str) -> Clock:
    """For parts of a call that are launched together with all others, as by a CUDA graph."""
    return QueuedCudaClock(device) if torch.device(device).type == "cuda" else WallClock()


def wake(run: Run, clock: Clock) -> None:
    """Call `run` until the processor is out of its low-power state, where that takes asking."""
    if isinstance(clock, CudaClock):
        clock.wake(run)
