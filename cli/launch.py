"""Started by `torchrun`: the first process does the work and talks, the others help it train."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from ..core.processes import python


def _by_torchrun() -> bool:
    return int(os.environ.get("WORLD_SIZE") or 1) > 1


@contextmanager
def joined(device: str) -> Iterator[bool]:
    """True in the process that does the work; False in one whose help is over by then."""
    if not _by_torchrun():
        yield True
        return
    from ..tuning.distributed import worker_loop, coordinator

    if os.environ["RANK"] == "0":
        with coordinator(device):
            yield True
    else:
        worker_loop(device)
        yield False


def usual_threads() -> int | None:
    """Torch's own choice on this machine, where `torchrun` has set one thread for each process.

    Only the first process measures, and what it measures must hold for a program of its own.
    """
    if not _by_torchrun() or os.environ.get("OMP_NUM_THREADS") != "1":
        return None
    ask = "import torch; print(torch.get_num_threads())"
    env = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    answer = subprocess.run(python("-c", ask), env=env, capture_output=True, text=True, check=True)
    return int(answer.stdout)
