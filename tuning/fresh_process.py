"""The interpreter that verifies, started while the run still loads: its imports take seconds."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ..core.processes import die_with_parent, python

MODULE = "modelspeed.tuning.verification"
READY = "ready"
_waiting: list[subprocess.Popen[str]] = []


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
        process.stdout.readline()  # an empty one where it failed; it will be told when it is taken


def taken() -> subprocess.Popen[str]:
    """The one that was started ahead, or else a new one."""
    return _waiting.pop() if _waiting else started()


def request_given() -> str:
    """The fresh process's side: say that it is ready, and wait. Empty where none comes."""
    die_with_parent(int(sys.argv[1]))
    print(READY, flush=True)
    return sys.stdin.read()
