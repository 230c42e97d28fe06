"""The interpreter that verifies, started while the run still loads: its imports take seconds."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from ..core.processes import die_with_parent, python

MODULE = "modelspeed.tuning.verification"
_waiting: list[subprocess.Popen[str]] = []
_ahead: list[float] = []  # seconds of imports, of those that wait


def started() -> subprocess.Popen[str]:
    """A new interpreter that imports all it needs, says so, and waits for its request."""
    pipe = subprocess.PIPE
    words = python("-m", MODULE, str(os.getpid()))
    return subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


@contextmanager
def started_ahead(wanted: bool = True) -> Iterator[None]:
    """Start the one that the first verification in the block will take."""
    process = started() if wanted else None
    if process is not None:
        _waiting.append(process)
    try:
        yield
    finally:
        if process in _waiting:
            _waiting.remove(process)
            process.kill()
            process.communicate()


def wait_for_imports() -> None:
    """Return once none of them computes any more, so that what is measured has the cores."""
    for process in _waiting:
        assert process.stdout is not None
        line = process.stdout.readline()  # empty where it failed: that is told when it is taken
        _ahead[:] = [float(line or 0.0)]


def taken() -> subprocess.Popen[str]:
    """The one that was started ahead, or else a new one."""
    if _waiting:
        return _waiting.pop()
    _ahead.clear()
    return started()


def imported_ahead() -> float:
    """Seconds of imports that the last one taken had behind it: the next one takes so much more."""
    return sum(_ahead)


def request_given() -> str:
    """The fresh process's side: say how long the imports took, and wait. Empty where none comes."""
    die_with_parent(int(sys.argv[1]))
    from torch._export.serde import serialize  # noqa: F401  (what reads programs takes a second)

    print(f"{time.process_time():.2f}", flush=True)
    return sys.stdin.read()
