"""Requests of a child process to the system: to end with its parent, and a limit of memory."""

from __future__ import annotations

import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def python(*words: str) -> tuple[str, ...]:
    """Words that start this Python again, which finds modules where this process does.

    `-m` and `-c` alone put the current folder first: a `torch.py` beside a checkpoint would run.
    """
    here = {"", os.getcwd()}
    if here & set(sys.path) or (sys.version_info < (3, 11) and words[:1] != ("-m",)):
        return (sys.executable, *words)
    if sys.version_info >= (3, 11):
        return (sys.executable, "-P", *words)
    first = "import sys; sys.path.remove(''); import runpy; sys.argv[:1] = []; "
    run = "runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"
    return (sys.executable, "-c", first + run, *words[1:])


def die_with_parent(parent: int) -> None:
    """The kernel kills this process as soon as process `parent` is gone, however that ends.

    Survives `exec`. Linux only; elsewhere nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the line above
        os.kill(os.getpid(), signal.SIGKILL)


def limit_memory(limit: int) -> None:
    """At most `limit` bytes of private memory; what asks for more gets an error, no kill.

    RLIMIT_DATA and not RLIMIT_AS: address space alone, of which torch reserves gigabytes, costs
    nothing. 0 sets no limit.
    """
    if limit > 0:
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
