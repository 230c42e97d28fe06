"""Who keeps the machine busy: other processes by their share of CPU time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

WINDOW = 0.5  # seconds; /proc counts in steps of 10 ms
SHOWN = 3
WORTH_NAMING = 0.1  # of a core
PROC = Path("/proc")


@dataclass(frozen=True)
class Share:
    """A process and the CPU time that it uses, in cores."""

    pid: int
    name: str
    cores: float


@dataclass(frozen=True)
class _Seen:
    """Ticks of CPU time: of each other process, of the whole machine and of our own group."""

    processes: dict[int, tuple[str, int]]
    machine: int
    own: int


def by_whom(
    proc: Path = PROC, sleep: Callable[[float], None] = time.sleep, window: float = WINDOW
) -> str:
    """Names the busiest other processes of a short window; or what they use in all, where a
    container shows none of them. Empty where nothing is to be seen."""
    ticks = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
    before = _seen(proc)
    sleep(window)
    after = _seen(proc)
    whole = window * ticks
    shares = [share for share in _shares(before, after, whole) if share.cores >= WORTH_NAMING]
    if shares:
        return ", ".join(
            f"`{s.name}` (process {s.pid}) takes {s.cores:.0%} of a core" for s in shares[:SHOWN]
        )
    others = (after.machine - before.machine - (after.own - before.own)) / whole
    if others < WORTH_NAMING:
        return ""
    return f"programs outside this container take {others:.1f} of {os.cpu_count() or 1} cores"


def _shares(before: _Seen, after: _Seen, whole: float) -> list[Share]:
    found = [
        Share(pid, name, (ticks - before.processes[pid][1]) / whole)
        for pid, (name, ticks) in after.processes.items()
        if pid in before.processes
    ]
    return sorted(found, key=lambda share: -share.cores)


def _seen(proc: Path) -> _Seen:
    processes: dict[int, tuple[str, int]] = {}
    group, own = os.getpgrp() if hasattr(os, "getpgrp") else -1, 0
    for path in proc.glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):  # it may end while it is read
            name, of_group, ticks = _parsed(path.read_text(errors="replace"))
            if of_group == group:
                own += ticks
            else:
                processes[int(path.parent.name)] = (name, ticks)
    return _Seen(processes, _machine(proc), own)


def _parsed(line: str) -> tuple[str, int, int]:
    """Name, process group and ticks; the name is in brackets and may hold any character."""
    head, _, rest = line.rpartition(")")
    fields = rest.split()
    return head.partition("(")[2], int(fields[2]), int(fields[11]) + int(fields[12])


def _machine(proc: Path) -> int:
    with suppress(OSError, ValueError, IndexError):
        user, nice, system, _, _, irq, softirq, steal = map(
            int, (proc / "stat").read_text().split("\n", 1)[0].split()[1:9]
        )
        return user + nice + system + irq + softirq + steal
    return 0
