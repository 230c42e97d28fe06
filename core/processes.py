"""What a child process asks of the system: to end with its parent, and a limit of memory."""

from __future__ import annotations

import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


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
