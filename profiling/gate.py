"""Measuring alone: while one process of a batch times something, the others stand still.

A readers/writer gate across processes. Computing asks for nothing. Who measures passes the lock
`turn`, so that a process that has just measured can't overtake one that waits, takes the lock
`device`, and stops (SIGSTOP) every other process group that is enrolled in the gate's folder.
Locks are flocks: the kernel frees them when their holder dies. An enrolment is a file named after
its process group, locked by the process that started the group; without that lock it is stale.
Where the measuring process was killed, `relieve` continues those that it left standing.

Cooperative locking would be gentler, but a writer would wait for the longest stretch of any
library's code, and all cores with it.
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..core.errors import MeasureError

VARIABLE = "MODELSPEED_GATE"  # the gate's folder; without it nothing is locked
_depth = 0
_own = 0.0  # seconds that this process has had the machine to itself


def usual_folder() -> Path:
    """One gate for all batches of this user on this machine, or in this container."""
    with suppress(OSError):
        namespace = os.readlink("/proc/self/ns/pid").strip("pid:[]")
        return Path(tempfile.gettempdir()) / f"modelspeed-gate-{os.getuid()}-{namespace}"
    return Path(tempfile.gettempdir()) / f"modelspeed-gate-{os.getuid()}"


@contextmanager
def alone() -> Iterator[None]:
    """The block has the machine to itself, as far as enrolled processes go. May be nested."""
    global _depth, _own
    folder = os.environ.get(VARIABLE)
    if not folder or _depth:
        yield
        return
    gate = Path(folder)
    with _locked(gate / "turn"):
        device = _open(gate / "device")
        _flock(device)
    _depth += 1
    begun = time.monotonic()
    try:
        _signal(gate, signal.SIGSTOP)
        yield
    finally:
        _depth -= 1
        took = time.monotonic() - begun
        _own += took
        _write_held(gate, _held(gate) + took)
        # Before the lock is free, so that this can't continue what the next one has stopped.
        _signal(gate, signal.SIGCONT)
        _unlock(device)


def working() -> float:
    """`time.monotonic()` without the time that others of a batch had the machine to themselves.

    For limits of time: standing still is not work."""
    folder = os.environ.get(VARIABLE)
    return time.monotonic() - (_held(Path(folder)) - _own if folder else 0.0)


def _held(gate: Path) -> float:
    """Seconds that anybody has had the machine, since the gate was made."""
    try:
        return float((gate / "held").read_text())
    except (OSError, ValueError):
        return 0.0


def _write_held(gate: Path, seconds: float) -> None:
    # At one width and in one write, so that a reader never finds half of it.
    with suppress(OSError):
        file = os.open(gate / "held", os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        os.pwrite(file, f"{seconds:020.6f}".encode(), 0)
        os.close(file)


class Enrolment:
    """A process group that stands still while others measure; `close` when it has ended."""

    def __init__(self, gate: Path, group: int) -> None:
        gate.mkdir(mode=0o700, parents=True, exist_ok=True)
        if gate.stat().st_uid != os.getuid():  # whoever made it says whom we stop
            raise MeasureError(f"`{gate}` belongs to another user; remove it, or set `TMPDIR`.")
        self.gate, self.group = gate, group
        self.path = gate / str(group)
        self._file = _locked_anew(self.path)
        if (free := _try(gate / "device")) is None:  # someone measures at this moment
            _kill(group, signal.SIGSTOP)
        else:
            _unlock(free)

    def relieve(self) -> None:
        """Continue the group where nobody measures: who stopped it may have been killed."""
        if (free := _try(self.gate / "device")) is not None:
            _kill(self.group, signal.SIGCONT)
            _unlock(free)

    def close(self) -> None:
        """Once; again does nothing."""
        if self._file >= 0:
            self.path.unlink(missing_ok=True)
            _unlock(self._file)
            self._file = -1


def _signal(gate: Path, what: signal.Signals) -> None:
    own = os.getpgrp()
    for path in gate.iterdir():
        if path.name.isdigit() and int(path.name) != own and _enrolled(path):
            _kill(int(path.name), what)


def _enrolled(path: Path) -> bool:
    """True if the starter of the group still holds its lock; a stale file is removed."""
    try:
        stale = _try(path)
    except FileNotFoundError:
        return False
    if stale is None:
        return True
    path.unlink(missing_ok=True)
    _unlock(stale)
    return False


def _kill(group: int, what: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, what)


def _locked_anew(path: Path) -> int:
    """A locked file at `path`; one that was taken for stale in between is made again."""
    while True:
        file = _open(path)
        _flock(file)
        with suppress(FileNotFoundError):
            if os.fstat(file).st_ino == path.stat().st_ino:
                return file
        _unlock(file)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    file = _open(path)
    _flock(file)
    try:
        yield
    finally:
        _unlock(file)


def _open(path: Path) -> int:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)


def _flock(file: int) -> None:
    import fcntl

    fcntl.flock(file, fcntl.LOCK_EX)


def _try(path: Path) -> int | None:
    """The lock's file where it was free, None where another process holds it."""
    import fcntl

    file = _open(path)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(file)
        return None
    return file


def _unlock(file: int) -> None:
    import fcntl

    # Explicitly: a forked worker of the user's data may hold a copy of the descriptor.
    fcntl.flock(file, fcntl.LOCK_UN)
    os.close(file)
