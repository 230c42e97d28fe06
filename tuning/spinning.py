"""Fewer threads on a busy machine, where threads that spin for each other slow every call down.

An operator's threads meet at its end. Where another program has the core of one of them, all wait
for it by spinning: a call takes 10 to 100 times as long, and waits for the scheduler instead of
computing. A single thread only shares its core.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import median

import torch
from torch import nn

from ..backends.readiness import runner
from ..core.model_io import Inputs
from ..core.progress import Progress
from ..core.records import Notice, Target
from ..profiling.busy import by_whom
from ..profiling.clocks import Clock, clock_for
from ..profiling.gate import alone
from ..profiling.machine import threads
from ..profiling.notices import cpu_contention, fewer_threads
from ..profiling.patience import OF_THIS_PROCESS

SPINNING = 1.5  # times what one thread takes: sharing alone makes no call slower than that
SECONDS, CALLS = 0.3, 3
SAME = 1.1  # among counts on a busy machine, more threads must be worth it


def without_spinning(
    target: Target,
    module: nn.Module,
    inputs: Inputs,
    progress: Progress,
    clock: Clock | None = None,
) -> tuple[Target, tuple[Notice, ...]]:
    """The target with a lower thread count where others keep the machine too busy for more.

    First it waits for them. The count holds for this process and, written into the target, for
    all that is compared in the run; a notice says so. A count that the user named stays.
    """
    count = torch.get_num_threads()
    if not target.device.startswith("cpu") or target.threads or count == 1:
        return target, ()
    probe = _Probe(runner(module, inputs), clock or clock_for(target.device))
    if not probe.spins(count):
        return target, ()
    progress.stage("waiting for a busy machine")
    for _ in OF_THIS_PROCESS.pauses(probe.clock.sleep):
        if not probe.spins(count):
            return target, ()
    times = {n: probe.at(n)[0] for n in _halves(count)}
    least = min(times.values())
    fewer = min(n for n, ms in times.items() if ms <= SAME * least)
    if fewer == count:
        return target, ()
    notice = fewer_threads(count, fewer, times[count], times[fewer], by_whom())
    progress.note(f"{notice.seen} {notice.cause} {notice.remedy}")
    torch.set_num_threads(fewer)
    return replace(target, threads=fewer), (notice,)


def _halves(count: int) -> list[int]:
    """`count` and what is left of it by halving, down to 1."""
    row = [count]
    while row[-1] > 1:
        row.append(row[-1] // 2)
    return row


@dataclass(frozen=True)
class _Probe:
    run: Callable[[], object]
    clock: Clock

    def spins(self, count: int) -> bool:
        """True if others keep the machine busy, and one thread is faster than `count`."""
        many, contended = self.at(count)
        return contended and many > SPINNING * self.at(1)[0]

    def at(self, count: int) -> tuple[float, bool]:
        """Median of some calls (ms), and whether others kept the machine busy meanwhile."""
        with alone(), threads(count):
            self.run()
            before, start = self.clock.load(), self.clock.now()
            times: list[float] = []
            while len(times) < CALLS or self.clock.now() - start < SECONDS:
                times.append(self.clock.time(self.run))
            return median(times), cpu_contention(before, self.clock.load()) is not None
